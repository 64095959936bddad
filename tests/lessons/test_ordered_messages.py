"""Lesson "ordered messages": the first of two events fails once, and is retried."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from celery import shared_task

import outbox
from lab.lessons.ordered_messages import tell
from outbox.testing import drain

pytestmark = pytest.mark.django_db
EVENTS = ["order.completed", "order.cancelled"]
tried: list[str] = []


@shared_task(autoretry_for=(ConnectionError,), max_retries=3)
def deliver(event: str) -> None:
    """The customer's endpoint does not answer the first call."""
    tried.append(event)
    if len(tried) == 1:
        raise ConnectionError("down")


@pytest.fixture(autouse=True)
def _nothing_tried() -> Iterator[None]:
    tried.clear()
    yield
    tried.clear()


def test_wrong_what_is_retried_comes_after_what_was_behind_it() -> None:
    tell(deliver, EVENTS)
    drain()
    assert tried == ["order.completed", "order.cancelled", "order.completed"]


def test_right_what_has_one_ordering_key_waits_for_the_retry() -> None:
    for event in EVENTS:
        outbox.enqueue(deliver.s(event), ordering_key="customer-1")
    drain()
    assert tried == ["order.completed", "order.completed", "order.cancelled"]


def test_right_another_customer_does_not_wait() -> None:
    for customer, event in enumerate(EVENTS):
        outbox.enqueue(deliver.s(event), ordering_key=f"customer-{customer}")
    drain()
    assert ("order.completed", "order.cancelled") in pairwise(tried)
