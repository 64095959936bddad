"""pytest plugin: the fixture `broker`, so that one test runs on both brokers.

RabbitMQ is started once per run, by the first test that asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from django.conf import settings

from config.queues import is_rabbitmq
from lab.stack.errors import StackError
from lab.stack.rabbitmq import RabbitMQ, find_server
from tests.support.brokers import private_directory, using


@pytest.fixture(scope="session")
def rabbitmq(request: pytest.FixtureRequest) -> Iterator[RabbitMQ]:
    """The run's own RabbitMQ. A test that kills it starts it again."""
    try:
        find_server()
    except StackError as missing:
        # The run that decides about a release must not pass over half of the brokers.
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(missing))
    with private_directory() as directory:
        server = RabbitMQ(
            directory / "rabbitmq",
            password="test",
            log=directory / "log",
            env=dict(os.environ),
            durable=False,
        )
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """The broker that the test and its processes use: the run's Redis, or RabbitMQ where a test names it.

    Returns its URL. It is emptied by the fixture `clean`.
    """
    if getattr(request, "param", "redis") == "rabbitmq":
        url = request.getfixturevalue("rabbitmq").url
        with using(url):
            yield url
        return
    if hasattr(request, "param") and is_rabbitmq(settings.CELERY_BROKER_URL):
        pytest.skip("BROKER_URL names a RabbitMQ for the whole run")
    yield settings.CELERY_BROKER_URL
