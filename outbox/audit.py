"""The record of what operators did to messages that wait: paused, resumed, run now. The admin lists it."""

from __future__ import annotations

import getpass
import os

from outbox import report
from outbox.models import OperatorAction
from outbox.prepared import storable
from outbox.status import Verb

#: Of what an operator writes, in characters; the admin takes no more.
MAX_REASON = 1_000


def as_shown(reason: str) -> str:
    """What an operator wrote or a broker said, without secrets, on one line, of MAX_REASON characters at the most."""
    line = "".join(each if each.isprintable() else " " for each in str(report.masked(reason)))
    return storable(line)[:MAX_REASON]


def record(verb: Verb, target: str, *, actor: str, reason: str = "", messages: int | None = None) -> None:
    """Write it down, `reason` as it may be shown, in the caller's transaction if there is one."""
    OperatorAction.objects.create(
        verb=verb, target=storable(target), actor=storable(actor), reason=as_shown(reason), messages=messages
    )


def terminal_user() -> str:
    """Who runs a command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under any number, without an entry in passwd.
        return f"uid {os.getuid()}"
