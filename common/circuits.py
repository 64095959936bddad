"""The open circuit that a task would meet: the dead-letter desk warns of it before it sends the task's messages again."""

from __future__ import annotations

import logging

from celery import current_app

from resilience import circuits
from resilience.connection import UNAVAILABLE

logger = logging.getLogger(__name__)


def open_for(task: str) -> str:
    """The circuit that this task names (`@shared_task(circuit="warehouse")`), if it is open in any process; else ''.

    Also '' when Redis is down: this is only a hint for the operator, and the task checks the circuit itself.
    """
    circuit = getattr(current_app.tasks.get(task), "circuit", "")
    try:
        return circuit if circuit and circuits.open_in_processes().get(circuit) else ""
    except UNAVAILABLE as error:
        logger.warning("the state of the circuit %s cannot be read: %s", circuit, error)
        return ""
