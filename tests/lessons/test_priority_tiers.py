"""Lesson "priority tiers": a payment comes while a report is at work, and a hundred reports wait before it."""

from __future__ import annotations

import re
from pathlib import Path
from queue import PriorityQueue
from typing import Any

import pytest
from celery import current_app

import outbox
from config.queues import TIERS
from lab.lessons.priority_tiers import Job, worker
from orders.tasks import generate_report, process_order
from outbox.relay.loop import Relay

PROCFILE = Path(__file__).resolve().parents[2] / "Procfile"


def test_wrong_what_is_urgent_waits_for_what_runs() -> None:
    done = list[str]()
    jobs: PriorityQueue[Job] = PriorityQueue()

    def report() -> None:
        jobs.put((1, lambda: done.append("payment")))
        done.append("report")

    jobs.put((9, report))

    worker(jobs)

    assert done == ["report", "payment"]


@pytest.mark.described("workers of its own for each queue")
def test_right_each_tier_has_processes_that_read_no_other_queue() -> None:
    read = re.findall(r"^\w+: exec celery .* -Q (\S+) ", PROCFILE.read_text(), re.MULTILINE)
    assert sorted(read) == sorted(TIERS)
    assert (process_order.queue, generate_report.queue) == ("critical", "low")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("clean")
def test_right_a_queue_that_is_full_holds_up_no_other_queue(settings: Any) -> None:
    settings.OUTBOX_DEPTH_LIMIT = 5
    outbox.enqueue_many([generate_report.s(number) for number in range(100)])
    outbox.enqueue(process_order.s(1))
    relay = Relay(current_app._get_current_object())

    while relay.run_once():
        pass

    assert relay._publisher.depths(["low", "critical"]) == {"low": 5, "critical": 1}
    relay._publisher.close()
