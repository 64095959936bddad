"""One worker for all tests of a module: what a test does to a message must not touch the worker anyway."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from config.celery import app
from tests.support import effects
from tests.support.processes import Process, worker


@pytest.fixture(scope="module")
def live(
    request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[Process]:
    """A running worker with two processes on the queue `default`."""
    with django_db_blocker.unblock():
        app.control.purge()
        failed_before = request.session.testsfailed
        with worker(concurrency=2, name="live") as process:
            yield process
            if request.session.testsfailed > failed_before:
                sys.stderr.write(process.output())


@pytest.fixture
def tidy(transactional_db: None) -> None:
    """Committed data, no effects; the broker is left alone, because a worker is connected to it."""
    effects.clear()
