"""The circuit that stands in a task's way: what the dead-letter desk says before it sends the task's messages again."""

from __future__ import annotations

import logging

from celery import current_app

from resilience import circuits
from resilience.connection import UNAVAILABLE

logger = logging.getLogger(__name__)


def open_for(task: str) -> str:
    """The circuit that this task names (`@shared_task(circuit="warehouse")`), if it is open in any process; else ''.

    Also '' when Redis cannot be asked: a circuit is a hint for the operator, and the task meets it by itself.
    """
    circuit = getattr(current_app.tasks.get(task), "circuit", "")
    try:
        return circuit if circuit and circuits.open_in_processes().get(circuit) else ""
    except UNAVAILABLE as error:
        logger.warning("it is not known whether the circuit %s is open: %s", circuit, error)
        return ""
