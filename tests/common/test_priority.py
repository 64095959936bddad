"""The tiers: their numbers, and the queue of each."""

from __future__ import annotations

import pytest

from common.priority import Priority


@pytest.mark.described("`Priority`: `CRITICAL` 100, `HIGH` 50, `NORMAL` 10, `LOW` 1")
def test_each_priority_has_its_number_and_its_queue() -> None:
    assert [(priority.value, priority.queue) for priority in Priority] == [
        (100, "critical"),
        (50, "high"),
        (10, "default"),
        (1, "low"),
    ]
