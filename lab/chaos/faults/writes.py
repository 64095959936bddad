"""Faults in which the database answers and cannot write: it is read-only, its disk is full, or its standby is gone."""

from __future__ import annotations

import os
import random
from pathlib import Path

from lab.chaos.faults.kinds import Hit, kind
from lab.chaos.system import Database, System

LASTS_S = (4.0, 8.0)
#: While this file is in the server's data directory, its disk counts as full. A file and not a row or a setting: it takes
#: no lock, and it is still there when another fault kills the server.
FULL = "chaos_disk_full"
#: Real disks fail when a table has to grow: each INSERT, and an UPDATE whose page has no room for the new row version.
#: nextval is not rolled back with the statement, so it counts those that were refused.
_TRIGGER = f"""
CREATE SEQUENCE chaos_refused;
CREATE FUNCTION chaos_disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (pg_stat_file('{FULL}', true)).size IS NOT NULL AND (TG_OP = 'INSERT' OR random() < 0.3) THEN
        PERFORM nextval('chaos_refused');
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
    END IF;
    RETURN NULL;
END $$;
DO $$
DECLARE each text;
BEGIN
    FOR each IN SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'django_%%' LOOP
        EXECUTE format('CREATE TRIGGER chaos_disk_full BEFORE INSERT OR UPDATE ON %%s'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION chaos_disk_full()', each);
    END LOOP;
END $$
"""


def install(database: Database) -> None:
    """Make every table of the application fail while the disk counts as full; before the first order."""
    database.rows(_TRIGGER)


@kind("database read-only", "postgres")
def read_only(system: System, dice: random.Random) -> Hit | None:
    """As a primary is that was demoted, or one that its provider protects from a full disk."""
    open_transactions = len(system.transactions())
    if "postgres" in system.held or not open_transactions:
        return None
    return _configured(system, dice, "default_transaction_read_only", "on", open_transactions)


@kind("synchronous standby gone", "postgres")
def standby_gone(system: System, dice: random.Random) -> Hit | None:
    """Every COMMIT waits until the standby is back or is given up; what it committed is visible only then."""
    open_transactions = len(system.transactions())
    if "postgres" in system.held or not open_transactions:
        return None
    return _configured(system, dice, "synchronous_standby_names", "'gone'", open_transactions)


def _configured(system: System, dice: random.Random, name: str, value: str, in_flight: int) -> Hit:
    """The server has this setting for a while; then its own again, also when another fault has killed it meanwhile."""

    def set_to(value: str) -> None:
        system.database.rows(f"ALTER SYSTEM SET {name} = {value}")
        system.database.rows("SELECT pg_reload_conf()")

    set_to(value)
    return Hit(
        in_flight, lasts_s=dice.uniform(*LASTS_S), places=("postgres",), heal=lambda: set_to("DEFAULT")
    )


@kind("disk of the database full", "postgres")
def full(system: System, dice: random.Random) -> Hit | None:
    if "postgres" in system.held or not system.transactions():
        return None
    [(directory,)] = system.database.rows("SHOW data_directory")
    marker = Path(directory) / FULL
    before = _refused(system.database)
    marker.touch()
    if (owner := marker.parent.stat()).st_uid != os.geteuid():
        os.chown(marker, owner.st_uid, owner.st_gid)

    def free() -> int:
        marker.unlink(missing_ok=True)
        return _refused(system.database) - before

    return Hit(
        0,
        lasts_s=dice.uniform(*LASTS_S),
        places=("postgres",),
        heal=free,
        met=lambda: _refused(system.database) > before,
    )


def _refused(database: Database) -> int:
    return database.number("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM chaos_refused")
