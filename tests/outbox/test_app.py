"""There is no silent bypass: whatever sends a task writes a row in the caller's transaction, whatever class the task has."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import pytest
from celery import chain, chord, current_app, group, signature
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from pytest_mock import MockerFixture

import outbox
from dlq.models import labels
from outbox import checks, operator_page
from outbox.enqueue import registered
from outbox.errors import EnqueueError
from outbox.models import OutboxMessage
from outbox.task import OutboxTask
from outbox.testing import drain, staged
from tests.support import effects, idioms, tasks
from tests.support.messages import row

WAYS: dict[str, Callable[[], Any]] = {
    "delay": lambda: tasks.note.delay("a"),
    "apply_async": lambda: tasks.note.apply_async(["a"]),
    "delay_on_commit": lambda: tasks.note.delay_on_commit("a"),
    "apply_async_on_commit": lambda: tasks.note.apply_async_on_commit(args=["a"]),
    "send_task": lambda: current_app.send_task("tests.support.tasks.note", ["a"]),
    "a signature": lambda: tasks.note.s("a").apply_async(),
    "a signature by name": lambda: signature("tests.support.tasks.note", args=("a",)).delay(),
    "a base class of its own": lambda: idioms.own_base.delay("a"),
    "a base class of Celery's for Django": lambda: idioms.django_base.delay_on_commit("a"),
    "a class-based task": lambda: idioms.class_based.delay("a"),
    "a task put into the registry": lambda: idioms.registered.delay("a"),
    "a base class with a call around the body": lambda: idioms.surrounded.delay("a"),
    "a base class with a call instead of the body's": lambda: idioms.replaced.delay("a"),
}
each_way = pytest.mark.parametrize("send", WAYS.values(), ids=WAYS)


@pytest.fixture
def nothing_published(mocker: MockerFixture) -> Any:
    publish = mocker.patch("kombu.messaging.Producer.publish")
    yield publish
    publish.assert_not_called()


@each_way
@pytest.mark.django_db(transaction=True)
def test_each_way_of_sending_is_a_row_of_the_callers_transaction(
    send: Callable[[], Any], nothing_published: Any
) -> None:
    with transaction.atomic():
        send()
        assert len(staged()) == 1
        transaction.set_rollback(True)
    assert staged() == []
    with transaction.atomic():
        send()
    assert len(staged()) == 1


@each_way
@pytest.mark.django_db
def test_each_way_of_sending_runs_and_is_settled(send: Callable[[], Any]) -> None:
    send()
    assert drain() == 1
    assert effects.count("a") == 1
    assert OutboxMessage.objects.get().status == "done"


@pytest.mark.django_db
def test_what_a_base_class_says_and_overrides_holds() -> None:
    result = idioms.own_base_unavailable.delay("a")
    assert drain() == 2
    message = row(result.id)
    assert (message.status, message.attempts, message.headers) == ("dead", 2, {"tenant": "acme"})
    assert idioms.own_base("b") == "b"


@pytest.mark.django_db
def test_a_base_class_call_method_runs_once_a_run() -> None:
    """Inside of the claim."""
    result = idioms.surrounded.delay("a", again=True)
    assert drain() == 2
    assert effects.names() == ["around", "a", "around", "a"]
    assert (row(result.id).status, row(result.id).attempts) == ("done", 2)
    idioms.surrounded("b")
    assert effects.names()[4:] == ["around", "b"]
    idioms.replaced("c")
    assert effects.names()[6:] == ["instead", "c"]


def test_every_task_of_the_application_is_claimed_before_it_runs() -> None:
    for task in current_app.tasks.values():
        assert isinstance(task, OutboxTask)


ADDED_BY_CELERY: dict[str, Any] = {
    "producer": object(),
    "reply_to": "a-thread",
    "add_to_parent": False,
    "root_id": "1",
    "parent_id": "2",
    "periodic_task_name": "nightly",
    "link": [],
    "link_error": None,
    "group_id": None,
    "retries": 0,
    "priority": 0,
    "ignore_result": True,
    "serializer": "json",
}


@pytest.mark.parametrize("name", ADDED_BY_CELERY)
@pytest.mark.django_db
def test_what_celery_adds_by_itself_is_no_reason_to_refuse(name: str) -> None:
    tasks.note.apply_async(["a"], **{name: ADDED_BY_CELERY[name]})
    current_app.send_task("tests.support.tasks.note", ["a"], **{name: ADDED_BY_CELERY[name]})
    assert len(staged()) == 2


@pytest.mark.django_db
def test_a_running_task_can_send_its_own_call_as_another_message() -> None:
    """Redis delivers each message with a priority, which nobody has asked for."""
    task = tasks.note
    delivered = {"exchange": "", "routing_key": "low", "priority": 0, "redelivered": False}
    task.push_request(id="1", called_directly=False, args=["a"], kwargs={}, delivery_info=delivered)
    try:
        task.signature_from_request(task_id=str(uuid.uuid4())).apply_async()
    finally:
        task.pop_request()
    (message,) = staged()
    assert (message.task, message.args, message.queue) == (task.name, ["a"], "low")


REFUSED: dict[str, Callable[[], Any]] = {
    "link": lambda: tasks.note.apply_async(["a"], link=tasks.note.s("b")),
    "link_error": lambda: tasks.note.apply_async(["a"], link_error=tasks.note.s("b")),
    "chain": lambda: chain(tasks.note.s("a"), tasks.note.si("b")).delay(),
    "group_id": lambda: group(tasks.note.s("a"), tasks.note.s("b")).delay(),
    "chord": lambda: tasks.note.apply_async(["a"], chord=tasks.note.s("b")),
    "expires": lambda: tasks.note.apply_async(["a"], expires=60),
    "priority": lambda: current_app.send_task("tests.support.tasks.note", ["a"], priority=3),
    "time_limit": lambda: tasks.note.apply_async(["a"], time_limit=5),
    "ignore_result": lambda: tasks.note.apply_async(["a"], ignore_result=False),
    "serializer": lambda: tasks.note.apply_async(["a"], serializer="pickle"),
    "shadow": lambda: tasks.note.apply_async(["a"], shadow="other"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.django_db
def test_what_the_outbox_cannot_keep_is_refused_by_name(name: str) -> None:
    with pytest.raises(EnqueueError, match=f"the outbox cannot keep `{name}`: "):
        REFUSED[name]()
    assert staged() == []


@pytest.mark.django_db
def test_a_task_with_a_priority_of_its_own_is_refused(mocker: MockerFixture) -> None:
    mocker.patch.object(idioms.django_base, "priority", 3)
    # Celery keeps what it has read of a task.
    mocker.patch.object(idioms.django_base, "_exec_options", None)
    for send in (
        lambda: idioms.django_base.delay("a"),
        lambda: outbox.enqueue(idioms.django_base.s("a")),
        lambda: current_app.send_task("tests.support.idioms.django_base", ["a"]),
    ):
        with pytest.raises(EnqueueError, match="cannot keep `priority`"):
            send()


@pytest.mark.django_db
def test_a_chord_is_refused() -> None:
    with pytest.raises((EnqueueError, NotImplementedError)):
        chord([tasks.note.s("a"), tasks.note.s("b")])(tasks.note.s("c"))
    assert staged() == []


@pytest.mark.django_db
def test_a_destination_is_a_queue_or_refused() -> None:
    queue = next(queue for queue in current_app.amqp.queues.values() if queue.name == "low")
    for options in ({"queue": "low"}, {"routing_key": "low"}, {"queue": queue}):
        tasks.note.apply_async(["a"], **options)
    assert [message.queue for message in staged()] == ["low"] * 3
    with pytest.raises(EnqueueError, match="not to 'orders"):
        tasks.note.apply_async(["a"], queue="low", routing_key="orders.#")
    with pytest.raises(EnqueueError, match="not to 'topics'"):
        tasks.note.apply_async(["a"], queue="low", exchange="topics")
    with pytest.raises(EnqueueError, match="topics"):
        tasks.note.apply_async(["a"], exchange="topics")


@pytest.mark.django_db
def test_an_eta_is_a_moment_or_its_text() -> None:
    later = datetime.now(UTC) + timedelta(seconds=600)
    for eta in (later, later.isoformat()):
        message = row(current_app.send_task("tests.support.tasks.note", ["a"], eta=eta).id)
        assert message.status == "scheduled"
        assert abs(message.deliver_at - later) < timedelta(seconds=5)


@pytest.mark.django_db
def test_arguments_that_celery_refuses_are_refused_in_its_words() -> None:
    with pytest.raises(TypeError, match="must be a list or tuple"):
        current_app.send_task("tests.support.tasks.note", "abc")
    with pytest.raises(TypeError, match="must be a mapping"):
        current_app.send_task("tests.support.tasks.note", kwargs=["a"])
    with pytest.raises(EnqueueError, match="is not registered"):
        current_app.send_task("elsewhere.task")


def test_unknown_names_do_not_set_django_up_again(mocker: MockerFixture) -> None:
    """Its logging would be configured anew, and handlers that something else has added to it would be lost."""
    imports = mocker.patch.object(current_app.loader, "import_default_modules")

    for _ in range(2):
        with pytest.raises(EnqueueError, match="is not registered"):
            registered("elsewhere.task")
        assert labels("low", "elsewhere.task", outside=True) == ("low", "unknown")
        operator_page.targets()

    assert imports.call_count == 0, "the tests have imported all tasks at their start"


def test_the_application_is_made_before_django_is_set_up() -> None:
    code = (
        "from outbox import Celery, enqueue\n"
        "from celery import shared_task\n"
        "@shared_task(name='early')\n"
        "def early(): pass\n"
        "app = Celery('early')\n"
        "from django.apps import apps\n"
        "assert not apps.ready\n"
        "from outbox.task import OutboxTask\n"
        "assert isinstance(app.tasks['early'], OutboxTask), type(app.tasks['early']).__mro__\n"
    )
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_an_outbox_task_of_another_application_is_refused() -> None:
    app = celery.Celery("other", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match=r"must be an outbox\.Celery"):

        @app.task(base=OutboxTask, lazy=False, shared=False)
        def other() -> None: ...


def test_an_application_that_publishes_by_itself_is_an_error_of_the_check(mocker: MockerFixture) -> None:
    mocker.patch.object(outbox.Celery, "sends_by_outbox", False)
    assert "outbox.E010" in [problem.id for problem in checks.check_settings()]


def test_the_projects_settings_come_before_the_outboxs_and_those_before_celerys() -> None:
    given = outbox.Celery("given", set_as_current=False)
    given.config_from_object({"worker_prefetch_multiplier": 3, "task_acks_late": False})
    assert (given.conf.worker_prefetch_multiplier, given.conf.task_acks_late) == (3, False)
    assert (given.conf.task_time_limit, given.conf.broker_connection_max_retries) == (360, None)
    assert given.conf.task_default_queue == "celery"


@pytest.mark.described("a worker takes no more messages than it has processes (prefetch)")
def test_a_worker_takes_one_message_for_each_of_its_processes() -> None:
    assert current_app.conf.worker_prefetch_multiplier == 1
    assert outbox.Celery("alone", set_as_current=False).conf.worker_prefetch_multiplier == 1
