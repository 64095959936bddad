"""Tasks that write more than their effect: children, and their own settlement."""

from __future__ import annotations

import uuid
from contextlib import nullcontext

from celery import shared_task
from django.db import transaction

import outbox
from outbox.models import OutboxMessage
from tests.support import effects
from tests.support.tasks import note


@shared_task
def parent_of_two(name: str, fail: bool = False) -> None:
    note.delay(f"{name}-child-1")
    note.delay(f"{name}-child-2")
    if fail:
        raise RuntimeError("after the children")


@shared_task
def parent_of(task_id: str) -> None:
    note.apply_async(args=["child"], task_id=task_id)


@shared_task
def parent_of_twins(name: str, way: str, task_id: str, keys: list[str]) -> None:
    """Enqueues one child twice, with these dedup keys, after its own effect and in one of several ways."""
    effects.add(name)
    twins = [note.s(name=f"{name}-child").set(task_id=task_id, dedup_key=key) for key in keys]
    if way == "one call":
        outbox.enqueue_many(twins)
    for number, twin in enumerate(twins if way != "one call" else []):
        with (
            transaction.atomic() if way == "atomic" or (way == "atomic at last" and number) else nullcontext()
        ):
            outbox.enqueue(twin)


@shared_task(last_write_settles=True, autoretry_for=(ConnectionError,), max_retries=2)
def settles_with_its_effect(name: str, how: str = "") -> None:
    """Notes the status that its message has after the block; `how`: what goes wrong."""
    if how == "has a child":
        note.delay("child")
    with (
        transaction.atomic() if how == "inside of a transaction" else nullcontext(),
        outbox.settling() as settle,
    ):
        effects.add(name)
        if how == "is overtaken":
            _overtake()
        if how != "does not settle":
            settle()
        if how == "fails in the block":
            raise ConnectionError
    effects.add(_own_status())
    if how == "has a late child":
        note.delay("late child")
    if how == "fails after the block":
        raise ConnectionError


@shared_task(transactional=True, last_write_settles=True, autoretry_for=(ConnectionError,), max_retries=2)
def settles_before_its_effect(name: str, how: str = "") -> None:
    """Notes the status that its message has then; `how`: what goes wrong."""
    with outbox.settling() as settle:
        settle()
        effects.add(name)
        if how == "has a child":
            note.delay("child")
        if how == "fails in the block":
            raise ConnectionError
    effects.add(_own_status())
    if how == "fails after the block":
        raise ConnectionError


@shared_task
def settles_later(name: str) -> None:
    with outbox.settling() as settle:
        effects.add(name)
        settle()
    effects.add(_own_status())


def _own_status() -> str:
    running = outbox.current()
    assert running is not None
    return OutboxMessage.objects.get(message_id=running.message_id).status


def _overtake() -> None:
    running = outbox.current()
    assert running is not None
    OutboxMessage.objects.filter(message_id=running.message_id).update(lease_token=uuid.uuid4())
