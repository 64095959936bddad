"""The idioms of Celery that are no call in a transaction: results, beats, tests, remote control, settings."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.lifting.idioms import REFUSED, WORKS, Row, shown
from tests.lifting.project import Project, SnippetError
from tests.support.processes import await_

#: Outcome and words.
Seen = tuple[str, str]

#: Celery's settings of the project in which the idioms are tried.
SETTINGS = """
from datetime import timedelta

from kombu import Queue

CELERY_TASK_QUEUES = [Queue("celery"), Queue("urgent")]
CELERY_TASK_SOFT_TIME_LIMIT = 15
CELERY_RESULT_BACKEND = CELERY_BROKER_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_BEAT_SCHEDULE = {
    "tick": {"task": "shop.tasks.note", "args": ["tick"], "schedule": timedelta(seconds=1)},
}
"""


def _arguments(project: Project) -> Seen:
    project.python(
        """
        values = uuid.uuid4(), decimal.Decimal("9.99"), timezone.now(), timezone.now().date(), gettext_lazy("Sunday")
        with transaction.atomic():
            tasks.typed.delay("typed", *values)
        """
    )
    project.await_effect("typed")
    (noted,) = project.python(
        "result = list(tasks.Effect.objects.filter(name__startswith='typed: ').values_list('name', flat=True))"
    )
    return WORKS, f"they arrive as {noted.removeprefix('typed: ')}"


def _call(project: Project) -> Seen:
    project.python("with transaction.atomic(): tasks.note('called'); tasks.note.apply(args=['called'])")
    assert project.times("called") == 2
    return WORKS, "it runs in this process, without a message"


def _state(project: Project) -> Seen:
    project.python(
        "with transaction.atomic(): sent = tasks.note.delay('state'); before = sent.state, sent.ready()"
    )
    await_(lambda: project.python("result = sent.ready()"), "AsyncResult.ready()")
    assert project.python("result = before, (sent.state, sent.ready())") == [
        ["PENDING", False],
        ["SUCCESS", True],
    ]
    return WORKS, "it is that of the row, with any result backend or none"


def _get(project: Project) -> Seen:
    return _said(project, "sent.get(timeout=5)")


def _get_kept(project: Project) -> Seen:
    project.python("with transaction.atomic(): kept = tasks.answers.delay('kept')")
    return _said(project, "kept.get(timeout=30)")


def _said(project: Project, code: str) -> Seen:
    try:
        return WORKS, f"it returns what the task returned, here `{project.python(f'result = {code}')!r}`"
    except SnippetError as refused:
        return REFUSED, shown(str(refused))


def _revoke(project: Project) -> Seen:
    project.python(
        """
        with transaction.atomic():
            later = tasks.note.apply_async(["revoked"], countdown=2)
        later.revoke()
        """
    )
    await_(lambda: project.python("result = later.ready()"), "the revoked message has ended")
    assert not project.times("revoked")
    (status,) = project.python("result = [row.status for row in rows('revoked')]")
    return WORKS, f"the message does not run; its row is `{status}`"


def _scheduler(name: str, words: str) -> Callable[[Project], Seen]:
    def observe(project: Project) -> Seen:
        count = "result = OutboxMessage.objects.filter(task='shop.tasks.note', args=['tick']).count()"
        ran, written = project.times("tick"), project.python(count)
        with project.process(f"celery -A myproject beat --loglevel INFO -S {name}"):
            await_(lambda: project.times("tick") >= ran + 2, f"two ticks of {name}", 60)
            assert project.python(count) >= written + 2
        return WORKS, words

    return observe


def _expiring_tick(project: Project) -> Seen:
    try:
        project.python(
            """
            from django_celery_beat.models import IntervalSchedule, PeriodicTask
            from django_celery_beat.schedulers import DatabaseScheduler, ModelEntry
            every, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.SECONDS)
            expires = PeriodicTask(
                name="expires", task="shop.tasks.note", args='["x"]', interval=every, expire_seconds=60
            )
            DatabaseScheduler(app=app, lazy=True).apply_async(ModelEntry(expires, app=app), advance=False)
            """
        )
    except SnippetError as refused:
        return REFUSED, shown(str(refused).partition("shop.tasks.note: ")[2])
    return WORKS, ""


def _eager(project: Project) -> Seen:
    project.write("myproject/eager.py", "from .settings import *\n\nCELERY_TASK_ALWAYS_EAGER = True\n")
    project.write(
        "shop/tests.py",
        """
from django.test import TestCase
from outbox.models import OutboxMessage

from shop.tasks import note, times


class Eager(TestCase):
    def test_eager(self):
        with self.captureOnCommitCallbacks(execute=True):
            note.delay("at once")
            note.delay_on_commit("with the commit")
            self.assertEqual([times("at once"), times("with the commit")], [1, 0])
        self.assertEqual(times("with the commit"), 1)
        self.assertFalse(OutboxMessage.objects.exists())
""",
    )
    project.run("python manage.py test shop --settings myproject.eager")
    return WORKS, "`delay` runs at once, `delay_on_commit` with the commit; there is no row"


def _drained(project: Project) -> Seen:
    project.write(
        "shop/tests.py",
        """
from django.test import TestCase
from outbox.testing import drain, staged

from shop.tasks import third_time, times


class Staged(TestCase):
    def test_staged(self):
        third_time.delay("staged")
        self.assertEqual([len(staged()), times("staged")], [1, 0])
        drain()
        self.assertEqual([len(staged()), times("staged:run"), times("staged")], [0, 3, 1])
""",
    )
    project.run("python manage.py test shop")
    return WORKS, "the message is staged; `drain()` runs it, with its retries"


def _events(project: Project) -> Seen:
    seen = project.python(
        """
        import threading
        types = []
        app.control.enable_events(reply=True, timeout=3)
        with app.connection_for_read() as broker:
            receiver = app.events.Receiver(broker, handlers={"*": lambda event: types.append(event["type"])})
            threading.Timer(1, lambda: tasks.note.delay("events")).start()
            # The worker's heartbeats go on coming, so that a timeout would never end it.
            threading.Timer(4, lambda: setattr(receiver, "should_stop", True)).start()
            receiver.capture(limit=None, timeout=None, wakeup=True)
        result = [name for name in ("task-received", "task-started", "task-succeeded") if name in types]
        """
    )
    return WORKS, f"they see {', '.join(f'`{name}`' for name in seen)}"


def _inspect(project: Project) -> Seen:
    (registered,) = project.python(
        "result = list((app.control.inspect(timeout=5).registered() or {'': []}).values())"
    )
    assert "shop.tasks.note" in registered
    return WORKS, "the worker answers"


def _routes(project: Project) -> Seen:
    project.write(
        "myproject/routed.py",
        "from .settings import *\n\nCELERY_TASK_ROUTES = {'shop.*': {'queue': 'urgent'}}\n",
    )
    return _ended_with(
        project, "python manage.py check --settings myproject.routed", r"\((outbox\.E\d+)\) (.+)"
    )


def _soft_limit_of_the_command(project: Project) -> Seen:
    return _ended_with(
        project, "celery -A myproject worker --soft-time-limit 5", r"()(--soft-time-limit is .+)"
    )


def _acknowledged_early(project: Project) -> Seen:
    with pytest.raises(SnippetError) as refused:
        project.python(
            """
            from celery import shared_task

            @shared_task(acks_late=False, name="early")
            def early():
                pass

            early.delay()
            """
        )
    found = re.search("(acks_late must be on, .+)", str(refused.value))
    assert found, refused.value
    return REFUSED, f"`ImproperlyConfigured`: {found[1]}"


def _ended_with(project: Project, command: str, reason: str) -> Seen:
    with pytest.raises(AssertionError) as ended:
        project.run(command)
    found = re.search(reason, str(ended.value))
    assert found, ended.value
    return REFUSED, " ".join(filter(None, found.groups()))


BEAT = "a row for each tick"

OBSERVED: dict[str, Callable[[Project], Seen]] = {
    "a `UUID`, a `Decimal`, a `datetime`, a `date` and a lazy text as arguments": _arguments,
    "`tasks.note(name)`, `tasks.note.apply([name])`": _call,
    "`result.state`, `result.ready()`, `app.AsyncResult(id).state`": _state,
    "`result.get()` of a task with `ignore_result=False` and a result backend": _get_kept,
    "`result.get()` of any other task": _get,
    "`result.revoke()`": _revoke,
    "`CELERY_BEAT_SCHEDULE` and `celery beat`": _scheduler(
        "outbox.scheduler:Scheduler",
        f"{BEAT}; of two beats one writes it, and none is missing after an outage",
    ),
    "Celery's own scheduler, `celery beat -S celery.beat:PersistentScheduler`": _scheduler(
        "celery.beat:PersistentScheduler", BEAT
    ),
    "django-celery-beat": _scheduler("django_celery_beat.schedulers:DatabaseScheduler", BEAT),
    "`expire_seconds` of a periodic task of django-celery-beat": _expiring_tick,
    "`celery inspect`, `app.control`": _inspect,
    "Flower, `celery events`": _events,
    "`CELERY_TASK_ALWAYS_EAGER = True` in the settings of tests": _eager,
    "`outbox.testing.staged()` and `drain()` in a `TestCase`": _drained,
    "`@shared_task(acks_late=False)`": _acknowledged_early,
    "`CELERY_TASK_ROUTES`": _routes,
    "`celery worker --soft-time-limit 5`": _soft_limit_of_the_command,
}


def observed(project: Project) -> list[Row]:
    return [Row(title, *observe(project)) for title, observe in OBSERVED.items()]
