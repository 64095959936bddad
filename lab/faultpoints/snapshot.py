"""The start of a scenario, staged once and put back for each of its points: tables, broker, locks and the sandbox.

To stage it again would run orders through the real tasks for every point, which takes longer than the point itself.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connection

from lab.faultpoints.in_process import Processes
from lab.faultpoints.sandbox import KeptSandbox

#: Times in the tables grow no older than when they were staged, but what lies outside of them does: Redis, the
#: sandbox, `state`. So nothing is put back that is older than this, or of another day.
KEPT_FOR_S = 120.0
#: A cursor of beat stands on a grid of ticks: moved by a few seconds it would stand beside it.
_ON_A_GRID = ("outbox_schedule",)
_SCHEMA = "crashpoints_snapshot"


@dataclass(frozen=True)
class Snapshot:
    """What `put_back` restores. Its rows lie in a schema of its database, so that there is one at a time."""

    scenario: str
    state: dict[str, Any]
    taken_at: float
    day: object
    tables: str  # SQL
    redis: list[dict[bytes, tuple[bytes, int]]]
    faults: Mapping[str, Any]

    @classmethod
    def take(
        cls,
        sandbox: KeptSandbox,
        processes: Processes,
        tables: list[str],
        scenario: str,
        state: dict[str, Any],
    ) -> Snapshot:
        sandbox.keep()
        return cls(
            scenario,
            copy.deepcopy(state),
            time.monotonic(),
            _today(),
            _keep_tables(tables),
            processes.contents(),
            dict(sandbox.faults or {}),
        )

    def fits(self, scenario: str) -> bool:
        return (
            self.scenario == scenario
            and time.monotonic() - self.taken_at < KEPT_FOR_S
            and self.day == _today()
        )

    def put_back(self, sandbox: KeptSandbox, processes: Processes) -> dict[str, Any]:
        """Everything as it was when the snapshot was taken; returns the scenario's state then."""
        with connection.cursor() as cursor:
            cursor.execute(self.tables)
        sandbox.put_back()
        sandbox.set_faults(self.faults)
        processes.fill(self.redis)
        return copy.deepcopy(self.state)


def _today() -> object:
    return datetime.now(UTC).date()


def _keep_tables(tables: list[str]) -> str:
    """Copy the tables; returns the SQL that puts the copies back, with all times moved to now."""
    filled = "SELECT ARRAY[{}]".format(", ".join(f"EXISTS (SELECT FROM {table})" for table in tables))
    with connection.cursor() as cursor:
        cursor.execute(filled)
        kept = [table for table, is_filled in zip(tables, cursor.fetchone()[0], strict=True) if is_filled]
        cursor.execute(
            f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE; CREATE SCHEMA {_SCHEMA}; "
            + "".join(f"CREATE UNLOGGED TABLE {_SCHEMA}.{table} AS TABLE {table}; " for table in kept)
            + "SELECT clock_timestamp()::text"
        )
        (taken_at,) = cursor.fetchone()
        cursor.execute(
            "SELECT table_name, array_agg(column_name::text), array_agg(data_type::text)"
            " FROM information_schema.columns WHERE table_schema = %s GROUP BY table_name",
            [_SCHEMA],
        )
        copied = [_copy_back(table, columns, types, taken_at) for table, columns, types in cursor.fetchall()]
    # Constraints between the tables wait until all are as they were.
    return "; ".join(
        [
            "SET session_replication_role = replica",
            *(f"DELETE FROM {table}" for table in tables),
            *copied,
            "SET session_replication_role = origin",
        ]
    )


def _copy_back(table: str, columns: list[str], types: list[str], taken_at: str) -> str:
    aged = f" + (now() - '{taken_at}'::timestamptz)"
    values = [
        f'"{column}"' + (aged if kind == "timestamp with time zone" and table not in _ON_A_GRID else "")
        for column, kind in zip(columns, types, strict=True)
    ]
    names = ", ".join(f'"{column}"' for column in columns)
    return f"INSERT INTO {table} ({names}) SELECT {', '.join(values)} FROM {_SCHEMA}.{table}"
