"""The record of what operators did to messages that wait: paused, resumed, run now. The admin lists it."""

from __future__ import annotations

import getpass
import os

from outbox.models import OperatorAction
from outbox.prepared import storable
from outbox.status import Verb


def record(verb: Verb, target: str, *, actor: str, reason: str = "", messages: int | None = None) -> None:
    """Write it down, in the caller's transaction if there is one."""
    OperatorAction.objects.create(
        verb=verb, target=storable(target), actor=storable(actor), reason=storable(reason), messages=messages
    )


def terminal_user() -> str:
    """Who runs a command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under any number, without an entry in passwd.
        return f"uid {os.getuid()}"
