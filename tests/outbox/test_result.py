"""AsyncResult: the state is the journal's, and a wait for a value that is not stored ends at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from celery import current_app
from celery.exceptions import TimeoutError
from django.db import transaction

from outbox import transitions
from outbox.errors import ResultNotKept
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.support import idioms, tasks
from tests.support.celery_settings import celery_settings
from tests.support.processes import relay, worker


@pytest.fixture
def results() -> Iterator[str]:
    """The backend of results that this process and its workers have meanwhile."""
    url = os.environ["REDIS_URL"]
    app = current_app
    with celery_settings(result_backend=url):
        app._local.__dict__.pop("backend", None)
        app._backend_cache = None
        yield url
    app._local.__dict__.pop("backend", None)
    app._backend_cache = None


@pytest.mark.django_db
def test_the_state_of_a_message_is_that_of_its_row() -> None:
    result = tasks.always_unavailable.apply_async(["a"], task_id="order-42")
    seen = current_app.AsyncResult("order-42")
    assert seen.id == result.id
    assert (seen.state, seen.ready()) == ("PENDING", False)
    OutboxMessage.objects.update(attempts=1)
    assert seen.state == "RETRY"
    OutboxMessage.objects.update(attempts=0)
    drain()
    assert (seen.state, seen.ready(), seen.failed()) == ("FAILURE", True, True)
    assert "the other side is down" in str(seen.result)
    done = tasks.note.delay("a")
    drain()
    assert (done.state, done.successful()) == ("SUCCESS", True)
    gone = tasks.note.apply_async(["a"], countdown=60)
    transitions.cancel(gone.id, reason="not wanted")
    assert (gone.state, gone.ready()) == ("REVOKED", True)
    assert current_app.AsyncResult("never sent").state == "PENDING"


@pytest.mark.django_db
def test_without_a_result_backend_a_wait_ends_at_once() -> None:
    """The error says why."""
    with pytest.raises(ResultNotKept, match="there is no result backend"):
        tasks.note.delay("a").get()


@pytest.mark.django_db
def test_a_wait_for_a_result_not_kept_ends_at_once(results: str) -> None:
    """The error says why."""
    with pytest.raises(ResultNotKept, match=r"tasks\.note keeps no result: set ignore_result=False"):
        tasks.note.delay("a").get()


@pytest.mark.django_db(transaction=True)
def test_a_wait_in_the_transaction_that_hides_the_message_ends_at_once(results: str) -> None:
    with transaction.atomic():
        result = idioms.answers.delay("a")
        with pytest.raises(ResultNotKept, match="before this transaction commits"):
            result.get()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        result.get(timeout=0.3)
    assert time.monotonic() - began < 5


@pytest.mark.django_db(transaction=True)
def test_a_value_that_the_task_keeps_is_what_get_returns(clean: None, results: str) -> None:
    with relay(), worker(env={"HOLDFAST_TEST_RESULTS": results}):
        assert idioms.answers.delay("a").get(timeout=60) == {"answer": 42}
        with pytest.raises(LookupError, match="no answer"):
            idioms.answers.delay("b", fail=True).get(timeout=60)
