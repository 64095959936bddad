"""Lesson "unique jobs": a report is asked for, the transaction rolls back, and it is asked for again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import transaction

from lab.lessons import unique_jobs
from orders.tasks import generate_report
from outbox.testing import staged
from resilience.connection import get_redis
from resilience.dedup import enqueue_unique, job_key, release

pytestmark = pytest.mark.django_db
REPORT_ID = 4711


@pytest.fixture(autouse=True)
def nothing_is_claimed() -> None:
    get_redis().delete(f"report:{REPORT_ID}")
    release(job_key(generate_report.s(REPORT_ID)))


def ask_and_roll_back(ask: Callable[[], object]) -> None:
    with transaction.atomic():
        assert ask()
        transaction.set_rollback(True)


def test_wrong_a_claim_in_redis_outlives_the_rollback() -> None:
    ask_and_roll_back(lambda: unique_jobs.request_report(get_redis(), REPORT_ID))
    assert not unique_jobs.request_report(get_redis(), REPORT_ID)
    assert not staged()


def test_right_a_claim_in_the_transaction_is_rolled_back_with_it() -> None:
    ask_and_roll_back(lambda: enqueue_unique(generate_report.s(REPORT_ID)))

    assert enqueue_unique(generate_report.s(REPORT_ID)) is not None
    assert enqueue_unique(generate_report.s(REPORT_ID)) is None
    assert len(staged()) == 1
