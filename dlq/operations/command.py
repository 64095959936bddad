"""What `manage.py dlq` does with operations: run one here, and list, pause, resume, cancel or go on with those that there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.core.management.base import CommandError

from dlq.operations import control, driver
from dlq.operations.models import ENDED, Operation, Progress
from dlq.operations.progress import numbers

ACTIONS = ("list", "show", "run", "pause", "resume", "cancel")
#: Operations in the list, the newest first.
LISTED = 20


def started(operation: Operation, **wanted: Any) -> Operation:
    """`control.start` for a terminal."""
    try:
        return control.start(operation, **wanted)
    except control.NotPossible as why:
        raise CommandError(str(why)) from why


def run(operation: Operation, *, actor: str, wait: bool, say: Callable[[str], Any]) -> None:
    """Send what the operation is about, here. Ctrl-C pauses it. What is not known at the end is left to the workers."""
    said = ""

    def report() -> None:
        nonlocal said
        if wait and (line := numbers(operation.pk).line()) != said:
            say(said := line)

    try:
        driver.run(operation.pk, wait=wait, report=report)
    except KeyboardInterrupt:
        control.pause(operation.pk, actor=actor)
        raise CommandError(
            f"paused: {numbers(operation.pk).line()}; manage.py dlq operations run {operation.pk} goes on"
        ) from None
    operation.refresh_from_db()
    if operation.state == Progress.STOPPED:
        say(f"operation {operation.pk} stopped: {operation.stopped_why}")
    elif operation.state not in ENDED:
        driver.ask(operation)


def act(action: str, operation_id: int | None, *, actor: str) -> Iterator[str]:
    """Do it; yields what to print."""
    if action == "list":
        yield from map(_line, Operation.objects.all()[:LISTED])
        return
    if operation_id is None and action == "run":
        for operation in Operation.objects.filter(state=Progress.RUNNING).order_by("pk"):
            driver.run(operation.pk)
            operation.refresh_from_db()
            yield _line(operation)
        return
    if operation_id is None:
        raise CommandError("name an operation by its number")
    found = Operation.objects.filter(pk=operation_id).first()
    if found is None:
        raise CommandError(f"there is no operation {operation_id}")
    try:
        if action == "pause":
            control.pause(found.pk, actor=actor)
        elif action == "cancel":
            control.cancel(found.pk, actor=actor)
        elif action == "resume":
            control.resume(found.pk, actor=actor)
        elif action == "run":
            if found.state != Progress.RUNNING:
                control.resume(found.pk, actor=actor, drive=False)
            driver.run(found.pk)
    except control.NotPossible as why:
        raise CommandError(str(why)) from why
    found.refresh_from_db()
    yield _line(found)


def _line(operation: Operation) -> str:
    stopped = f" ({operation.stopped_why})" if operation.stopped_why else ""
    return f"{operation.pk}  {operation.kind}  {operation.state}{stopped}  {operation.actor}  {numbers(operation.pk).line()}"
