"""The idioms of Celery that send a message, each tried in a scratch project; what is seen is a row of the page's table."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.lifting.project import Project, SnippetError
from tests.support.processes import await_

WORKS, IGNORED, REFUSED = "works", "ignored", "refused"
IN_THE_TRANSACTION = "the row is written now, and is part of the transaction"

PREAMBLE = """
import datetime, decimal, time, uuid
from celery import chain, chord, current_app as app, group
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy
from outbox.models import OutboxMessage
from shop import tasks

def rows(name):
    return [row for row in OutboxMessage.objects.all() if repr(name) in repr((row.args, row.kwargs))]

def content(row):
    own = {name: value for name, value in row.headers.items() if name != "traceparent"}
    return row.task, row.queue, own, row.ordering_key, row.dedup_key, row.generation, row.attempts
"""


@dataclass(frozen=True)
class Row:
    """A row of the table: `outcome` is one of WORKS, IGNORED and REFUSED."""

    idiom: str
    outcome: str
    words: str


@dataclass(frozen=True)
class Idiom:
    """Code as a project has it; `name` in it is the name of the effect that the task has when it runs."""

    code: str
    words: str = IN_THE_TRANSACTION
    #: What the table shows in place of the code.
    shown: str = ""
    #: Whether the option may change nothing: the row must be that of a call without it.
    ignored: bool = False
    #: What must be true of the `row` in the end, for the words to be true.
    keeps: str = "True"
    #: How the row ends.
    ends: str = "done"
    #: The effect to look for.
    effect: str = "{name}"

    @property
    def title(self) -> str:
        return self.shown or "`" + self.code.replace("|", "\\|") + "`"


def _option(code: str, words: str = "", *, ignored: bool = False, keeps: str = "True") -> Idiom:
    """An option of `apply_async`."""
    shown = f"`apply_async(…, {code})`"
    return Idiom(f"tasks.note.apply_async([name], {code})", words, shown, ignored=ignored, keeps=keeps)


def _ignored(code: str, words: str = "it would change nothing") -> Idiom:
    return _option(code, words, ignored=True)


LATER = "row.started_at - row.created_at > datetime.timedelta(seconds=1.9)"

SENDING = (
    Idiom("tasks.note.delay(name)"),
    Idiom("tasks.note.apply_async([name])"),
    Idiom("tasks.note.delay_on_commit(name)"),
    Idiom("tasks.note.apply_async_on_commit([name])"),
    Idiom("app.send_task('shop.tasks.note', [name])"),
    Idiom("tasks.note.s(name).delay()"),
    Idiom("app.signature('shop.tasks.note', [name]).apply_async()"),
    Idiom("tasks.note.map([name]).delay()", "one message for all items"),
    Idiom("tasks.note.starmap([(name,)]).delay()", "one message for all items"),
    Idiom(
        "tasks.audited.delay(name)",
        "its methods and hooks are called",
        "`@shared_task(base=MyTask)`",
        effect="{name}:audited",
    ),
    Idiom(
        "tasks.as_class.delay(name)",
        IN_THE_TRANSACTION,
        "a class with `run`, and `app.register_task`",
    ),
    _option("queue='urgent'", "the queue must be known", keeps="row.queue == 'urgent'"),
    _option("routing_key='urgent'", "it names a queue", keeps="row.queue == 'urgent'"),
    _option("countdown=2", "the row waits, not the broker", keeps=LATER),
    Idiom(
        "tasks.note.apply_async([name], eta=timezone.now() + datetime.timedelta(seconds=2))",
        "the row waits, not the broker",
        "`apply_async(…, eta=…)`",
        keeps=LATER,
    ),
    Idiom(
        "tasks.notes_tenant.apply_async([name], headers={'tenant': 'acme'})",
        "the task reads them as `self.request.tenant`",
        "`apply_async(…, headers={'tenant': 'acme'})`",
        effect="{name}:acme",
    ),
    _option(
        "task_id=str(uuid.uuid4())",
        "it is the message's id; a second use is refused",
        keeps="row.message_id.version == 4",
    ),
    Idiom(
        "tasks.note.apply_async([name], task_id='order-' + name)",
        "the id is a UUID (version 5) of the text; `AsyncResult` takes the text",
        "`apply_async(…, task_id='order-42')`",
        keeps="row.message_id.version == 5 and str(row.message_id) == app.AsyncResult('order-' + name).id",
    ),
    Idiom(
        "tasks.third_time.delay(name)",
        "a retry is the same row, scheduled again",
        "`autoretry_for`, `max_retries`, `retry_backoff`, … of a task",
        keeps="row.attempts == 3",
    ),
    Idiom(
        "tasks.retries_by_hand.delay(name)",
        "a retry is the same row, scheduled again",
        "`raise self.retry(countdown=…)`",
        keeps="row.attempts == 2",
    ),
    Idiom(
        "tasks.over_the_soft_limit.delay(name)",
        "`SoftTimeLimitExceeded` in the task",
        "`CELERY_TASK_SOFT_TIME_LIMIT`",
        effect="{name}:SoftTimeLimitExceeded",
    ),
    Idiom(
        "tasks.over_its_time.delay(name)",
        "the row is `dead`, and with `dlq/` a dead letter",
        "`@shared_task(time_limit=2)`",
        ends="dead",
        effect="{name}:run",
    ),
    Idiom("tasks.ignores.delay(name)", "the row is `done`", "`raise Ignore()`", effect="{name}:run"),
    Idiom(
        "tasks.rejects.delay(name)",
        "the row is `dead`, and with `dlq/` a dead letter",
        "`raise Reject(requeue=False)`",
        ends="dead",
        effect="{name}:run",
    ),
    Idiom(
        "with app.producer_pool.acquire() as producer: tasks.note.apply_async([name], producer=producer)",
        "the relay publishes, by a connection of its own",
        "`apply_async(…, producer=…)`",
        ignored=True,
    ),
    _ignored("reply_to='me'", "the state of a message is that of its row"),
    _ignored("add_to_parent=False", "a parent keeps no list of its children"),
    _ignored("root_id='r', parent_id='p'", "the headers of a message name its cause"),
    Idiom(
        "app.send_task('shop.tasks.note', [name], periodic_task_name='nightly')",
        "django-celery-beat adds it",
        "`send_task(…, periodic_task_name='nightly')`",
        ignored=True,
    ),
    _ignored("retry=True, retry_policy={'max_retries': 3}", "the relay tries until the broker is there"),
    _ignored("compression='gzip'", "a message is as large as its row"),
    _ignored("delivery_mode=1", "messages are durable: they are rows"),
    _option("link=tasks.note.si(name)"),
    _option("link_error=tasks.note.si(name)"),
    Idiom("chain(tasks.note.si(name), tasks.note.si(name)).delay()"),
    Idiom("(tasks.note.si(name) | tasks.note.si(name)).apply_async()"),
    Idiom("group(tasks.note.si(name), tasks.note.si(name)).delay()"),
    Idiom("chord([tasks.note.si(name)], tasks.note.si(name)).delay()"),
    Idiom("tasks.note.chunks([(name,)], 10).apply_async()"),
    _option("expires=60"),
    _option("priority=5"),
    _option("time_limit=5"),
    _option("soft_time_limit=5"),
    _option("ignore_result=False"),
    _option("serializer='pickle'"),
    _option("shadow='another name'"),
    _option("retries=1"),
    _option("exchange='orders', routing_key='order.placed'"),
    Idiom("tasks.note.s(name).stamp(tenant='acme').delay()"),
    _option("tenant='acme'"),
    Idiom("tasks.note.delay(tasks.did(name))", shown="a model's instance as an argument"),
    Idiom("tasks.replaces_itself.delay(name)", shown="`raise self.replace(…)`"),
    Idiom(
        "tasks.retries_elsewhere.delay(name)", shown="`raise self.retry(queue=…)`, or with other arguments"
    ),
)


def sent(project: Project) -> list[Row]:
    """What becomes of each in a transaction that rolls back, and in one that commits."""
    refused = {idiom: _send(project, idiom, number) for number, idiom in enumerate(SENDING)}
    return [
        Row(idiom.title, REFUSED, refusal) if refusal else _ended(project, idiom, number)
        for number, (idiom, refusal) in enumerate(refused.items())
    ]


def _send(project: Project, idiom: Idiom, number: int) -> str:
    """The refusal, or ''."""
    names = f"idiom {number} rolled back", f"idiom {number}"
    for name in names:
        try:
            written = project.python(
                f"""
                name = {name!r}
                with transaction.atomic():
                    {idiom.code}
                    result = len(rows(name))
                    transaction.set_rollback({name != names[1]})
                """
            )
        except SnippetError as error:
            assert not project.python(f"result = len(rows({name!r}))"), idiom
            return shown(str(error))
        assert written == 1, f"{idiom.title} writes {written} rows in the transaction"
    return ""


def _ended(project: Project, idiom: Idiom, number: int) -> Row:
    """What became of it after the commit, and nothing after the rollback."""
    name = f"idiom {number}"
    read = f"row, = rows({name!r}); name = {name!r}; plain, = rows('idiom 0')"

    def over() -> bool:
        status = project.python(f"{read}; result = row.status")
        return status not in ("scheduled", "blocked", "pending", "published")

    await_(over, f"the end of {idiom.title}", 60)
    assert not project.python(f"result = len(rows('{name} rolled back'))")
    for effect in {idiom.effect, "{name}:run", "{name}"}:
        assert not project.times(effect.format(name=f"{name} rolled back")), (
            f"{idiom.title} ran although rolled back"
        )
    status, error = project.python(f"{read}; result = row.status, row.errors[-1:]")
    if status != idiom.ends:
        assert status == "dead", (idiom, status)
        return Row(idiom.title, REFUSED, f"the run: {shown(error[0]['error'])}")
    assert project.times(idiom.effect.format(name=name)) == 1, idiom
    assert project.python(f"{read}; result = bool({idiom.keeps})"), f"{idiom.title}: not {idiom.keeps}"
    if idiom.ignored:
        assert project.python(f"{read}; result = content(row) == content(plain)"), (
            f"{idiom.title} changes the row"
        )
    return Row(idiom.title, IGNORED if idiom.ignored else WORKS, idiom.words)


def shown(text: str) -> str:
    """An error in a cell of the table: the same in each run, and without what every one begins with."""
    text = re.sub(r"^EnqueueError: ", "", text.splitlines()[0])
    text = re.sub(r"^shop\.tasks\.\w+: ", "", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|idiom \d+( rolled back)?", "…", text)
    return text.replace("|", "\\|")
