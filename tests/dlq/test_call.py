"""A dead letter names what it is about, is found by it exactly, and shows no secret whatever way it was passed."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import sys
import time
from typing import Any

import pytest
from celery import current_app
from celery.exceptions import NotRegistered
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

import outbox
from dlq import call
from dlq.masking import MASK
from dlq.message import RawMessage
from dlq.models import Cause, DeadLetter
from dlq.operations.models import Kind, Operation
from dlq.queue import DeadLetterQueue
from dlq.worker.failure import Ending
from outbox.models import OutboxMessage
from outbox.task import OutboxTask
from outbox.testing import drain
from tests.dlq.test_record import die, receive
from tests.support import tasks

IS_REFUSED = tasks.is_refused.name


@pytest.mark.parametrize(
    ("task", "args", "kwargs", "line", "about"),
    [
        ("orders.tasks.process_order", [999], {}, "order_id=999", ["order_id=999", "999"]),
        ("orders.tasks.process_order", [], {"order_id": 999}, "order_id=999", ["order_id=999", "999"]),
        (IS_REFUSED, [7, "s3cret"], {}, f"order_id=7, pass_phrase_of={MASK}", ["order_id=7", "7"]),
        (IS_REFUSED, [7], {"pass_phrase_of": "s"}, f"order_id=7, pass_phrase_of={MASK}", ["order_id=7", "7"]),
        ("no.such.task", [999, "a"], {"b": 1}, "999, 'a', b=1", ["999", "a", "b=1", "1"]),
        ("no.such.task", ["token", "hunter2"], {}, f"'token', {MASK}", ["token"]),
        ("no.such.task", [], {"password": "hunter2", "id": 1}, f"password={MASK}, id=1", ["id=1", "1"]),
        ("no.such.task", [True, None, 1.5, [1]], {}, "True, None, 1.5, [1]", []),
        ("no.such.task", [4242424242424242], {}, MASK, []),
        ("no.such.task", None, None, "", []),
        ("", "nonsense", 5, "", []),
        (
            tasks.note.name,
            ["a", "one too many"],
            {},
            "name='a', 'one too many'",
            ["name=a", "a", "one too many"],
        ),
    ],
)
def test_the_arguments_of_a_call(task: str, args: Any, kwargs: Any, line: str, about: list[str]) -> None:
    assert call.arguments(task, args, kwargs) == line
    assert call.subjects(task, args, kwargs) == about


def test_a_large_call_is_one_short_line_at_a_small_price() -> None:
    args = [{"items": [{"sku": "A" * 1_000_000}] * 1000}, "x" * 5_000_000, *range(100)]
    began = time.process_time()
    line = call.arguments("no.such.task", args, {"text": "password=hunter2 " * 100_000})
    call.subjects("no.such.task", args, {})
    assert time.process_time() - began < 0.2
    assert len(line) == call.MAX_LINE
    assert "hunter2" not in line


@given(
    canary=st.text("abcdefghjkmnpqrtuvwxyz0123456789", min_size=12, max_size=70).map(lambda text: f"Q{text}"),
    before=st.text(max_size=300),
    named=st.booleans(),
)
def test_what_a_task_calls_secret_is_never_shown_however_it_was_passed(
    canary: str, before: str, named: bool
) -> None:
    args, kwargs = ([7], {"pass_phrase_of": canary}) if named else ([7, canary], {})
    kwargs = {**kwargs, "note": f"{before} password={canary}"}
    shown = [
        call.arguments(IS_REFUSED, args, kwargs),
        call.arguments(IS_REFUSED, args, kwargs, None),
        *call.subjects(IS_REFUSED, args, kwargs),
        json.dumps(call.masked_call(IS_REFUSED, args, kwargs)),
    ]
    assert canary not in "".join(shown)
    assert (args[-1] if not named else kwargs["pass_phrase_of"]) == canary, "the mask is no part of the value"


@pytest.mark.parametrize("secret_arguments", ["token", ("tokn",), ("order_id", "tokn")])
def test_a_secret_argument_that_the_task_does_not_have_is_refused(secret_arguments: Any) -> None:
    class Misspelt(OutboxTask):
        name = "misspelt"

        def run(self, order_id: int, token: str) -> None: ...

    Misspelt.secret_arguments = secret_arguments
    with pytest.raises(ImproperlyConfigured, match="misspelt: secret_arguments names none of its arguments"):
        Misspelt.bind(current_app)


@pytest.fixture
def root(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def ids(root: Client, query: str) -> set[str]:
    page = root.get(reverse("admin:dlq_deadletter_changelist"), {"q": query})
    return set(page.context["cl"].queryset.values_list("message_id", flat=True))


@pytest.mark.django_db
def test_a_dead_letter_is_found_by_its_order_and_by_no_other(root: Client) -> None:
    die("m-1", args=[999])
    die("m-2", args=[9990])
    receive("m-3", kwargs={"order_id": 999}, args=[])
    DeadLetterQueue.add("m-4", queue="orders", payload={"order_id": 999}, error="x")
    for query in ("order_id=999", "999"):
        assert ids(root, query) == {"m-1", "m-3", "m-4"}
        out = io.StringIO()
        call_command("dlq", "list", "--about", query, stdout=out, stderr=io.StringIO())
        assert len(out.getvalue().splitlines()) == 3
    assert ids(root, "order_id=99") == ids(root, "99") == set()
    assert "process_order(order_id=999)" in out.getvalue()


@pytest.mark.django_db
def test_list_and_page_name_the_call(root: Client) -> None:
    """Links lead from it to all dead letters that are about the same order or customer."""
    dead_letter = die(args=[999])
    listed = root.get(reverse("admin:dlq_deadletter_changelist") + "?all=").content.decode()
    assert "process_order(order_id=999)" in listed
    page = root.get(reverse("admin:dlq_deadletter_change", args=[dead_letter.pk])).content.decode()
    assert "process_order(order_id=999)" in page
    assert '?q=order_id%3D999">order_id=999</a>' in page


@pytest.mark.django_db
def test_a_secret_in_a_positional_argument_is_never_shown(
    root: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """It is on no page and in no export."""
    secret = "Qx7hunter2hunter2"
    message_id = outbox.enqueue(tasks.is_refused.s(999, secret))
    drain()
    dead_letter = DeadLetter.objects.get()
    row = OutboxMessage.objects.get(message_id=message_id)
    pages = [
        reverse("admin:dlq_deadletter_changelist"),
        reverse("admin:dlq_deadletter_change", args=[dead_letter.pk]),
        reverse("admin:dlq_deadletter_groups"),
        reverse("admin:outbox_outboxmessage_changelist"),
        reverse("admin:outbox_outboxmessage_change", args=[row.pk]),
        reverse("metrics"),
    ]
    shown = [root.get(page).content.decode() for page in pages]
    for verb in (["list"], ["show", str(message_id)], ["export"]):
        out = io.StringIO()
        call_command("dlq", *verb, stdout=out, stderr=out)
        shown.append(out.getvalue())
    shown += [record.getMessage() for record in caplog.records if record.name.startswith(("outbox", "dlq"))]
    assert [text for text in shown if secret in text] == []
    assert sum("order_id=999" in text for text in shown) >= 7
    assert ids(root, secret) == set()
    dead_letter.refresh_from_db()
    assert dead_letter.args == row.args == [999, secret]


@pytest.mark.django_db
def test_a_secret_in_a_name_that_a_producer_chose_is_never_shown(
    root: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Its task is none of this deployment: a name that anybody who can write to the broker may have written."""
    secret = "Qx7hunter2hunter2"
    task = f"evil.tasks token={secret}"
    raw = RawMessage(
        b"[[], {}, null]",
        *("application/json", "utf-8"),
        {"id": "m-1", "task": task, "correlation_id": f"c password={secret}"},
        *({}, {"routing_key": f"q token={secret}"}),
    )
    ending = Ending(
        raw=raw,
        fields=raw.headers,
        exception=NotRegistered(task),
        error=repr(task),
        cause=Cause.UNKNOWN_TASK,
        task=task,
    )
    ending.record()
    dead_letter = DeadLetter.objects.get()
    assert (dead_letter.task, dead_letter.correlation_id) == (task, f"c password={secret}")
    changelist = reverse("admin:dlq_deadletter_changelist")
    pages = [
        f"{changelist}?state__exact=open",
        f"{changelist}?fingerprint={dead_letter.fingerprint}",
        reverse("admin:dlq_deadletter_change", args=[dead_letter.pk]),
        reverse("admin:dlq_deadletter_groups"),
        reverse("metrics"),
        reverse("alerts"),
    ]
    shown = [root.get(page).content.decode() for page in pages]
    for verb in (["list"], ["show", "m-1"], ["export"]):
        out = io.StringIO()
        call_command("dlq", *verb, stdout=out, stderr=out)
        shown.append(out.getvalue())
    root.post(reverse("admin:dlq_deadletter_act", args=[dead_letter.pk]), {"verb": "replay"})
    operation = reverse("admin:dlq_operation_change", args=[Operation.objects.get(kind=Kind.REPLAY).pk])
    shown.append(root.get(operation).content.decode())
    shown.append(
        root.get(reverse("admin:dlq_deadletter_edit", args=[dead_letter.pk]), follow=True).content.decode()
    )
    for export in ("export_csv", "export_json_lines"):
        form = {"action": export, "_selected_action": [dead_letter.pk]}
        shown.append(b"".join(root.post(changelist, form)).decode())
    shown += [str(ending), str(ending.log_fields()), *(record.getMessage() for record in caplog.records)]
    assert [text for text in shown if secret in text] == []
    assert sum(MASK in text for text in shown) >= 11


@pytest.mark.parametrize("name", settings.LOGGING["formatters"])
def test_a_line_of_the_log_shows_no_secret_of_any_logger(name: str) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    options = dict(settings.LOGGING["formatters"][name])
    handler.setFormatter(logging.config.DictConfigurator({}).configure_formatter(options))
    try:
        raise ValueError("password=hunter2 in hf_hunter2hunter2hunter2")
    except ValueError:
        record = logging.LogRecord(
            "celery.app.trace", 40, "", 0, "failed: %s", ("token=hunter2",), sys.exc_info()
        )
    handler.emit(record)
    assert "hunter2" not in stream.getvalue()
    assert "ValueError: password=" in stream.getvalue()
