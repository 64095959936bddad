"""A setting that would break a promise is found at start."""

from __future__ import annotations

from django.core.checks import CheckMessage
from pytest_django import Settings

from outbox.checks import check_acknowledgement, check_settings, check_time_limits


def texts(messages: list[CheckMessage]) -> list[str]:
    return [str(message.msg) for message in messages]


def test_the_settings_as_they_are_pass_on_both_brokers(settings: Settings) -> None:
    for url in ("redis://127.0.0.1/0", "amqp://127.0.0.1//"):
        settings.CELERY_BROKER_URL = url
        assert check_settings() == check_time_limits() == []


def test_on_redis_the_visibility_timeout_must_outlast_every_task(settings: Settings) -> None:
    settings.CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 360}
    assert texts(check_settings()) == [
        "VISIBILITY_TIMEOUT (360 s) must be longer than the hard time limit of CELERY_TASK_TIME_LIMIT (360 s):"
        " Redis would hand out messages that are still running"
    ]
    assert any("outbox.retention.prune (600 s)" in text for text in texts(check_time_limits()))


def test_on_rabbitmq_the_consumer_timeout_must_outlast_every_task(settings: Settings) -> None:
    settings.CELERY_BROKER_URL = "amqp://127.0.0.1//"
    settings.OUTBOX_CONSUMER_TIMEOUT = 300
    assert texts(check_settings()) == [
        "BROKER_CONSUMER_TIMEOUT (300 s) must be longer than the hard time limit of CELERY_TASK_TIME_LIMIT (360 s):"
        " RabbitMQ (consumer_timeout) would cut off a worker that is still running"
    ]
    assert any("outbox.retention.prune (600 s)" in text for text in texts(check_time_limits()))


def test_acknowledging_before_the_run_is_refused(settings: Settings) -> None:
    settings.CELERY_TASK_ACKS_LATE = False
    assert texts(check_settings()) == ["CELERY_TASK_ACKS_LATE must be on: a killed worker would lose work"]


def test_a_task_that_acknowledges_before_its_run_is_refused_by_name() -> None:
    assert texts(check_acknowledgement()) == [
        "acks_late of tests.support.tasks.kills_its_process_acknowledged must be on: a killed worker would lose work"
    ]
