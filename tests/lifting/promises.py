"""What holds in a scratch project that has the outbox, with the dead-letter desk and without.

Each test takes the fixture `project`, which the file that uses it makes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.lifting.project import Project
from tests.support.processes import Process, await_


def enqueue(project: Project, call: str, *, rollback: bool = False) -> None:
    """`call` in a transaction of the project's code."""
    project.python(
        f"""
        from django.db import transaction
        from shop import tasks
        with transaction.atomic():
            {call}
            transaction.set_rollback({rollback})
        """
    )


def rows(project: Project, name: str) -> list[dict[str, object]]:
    """The messages whose first argument this is."""
    found = project.python(
        f"""
        from outbox.models import OutboxMessage
        result = list(
            OutboxMessage.objects.filter(args__0={name!r}).values("status", "errors")
        )
        """
    )
    assert isinstance(found, list)
    return found


def await_status(project: Project, name: str, status: str, timeout_s: float = 30.0) -> None:
    await_(
        lambda: [row["status"] for row in rows(project, name)] == [status],
        f"{name} is {status}",
        timeout_s,
    )


def scheduled(project: Project) -> set[str]:
    """The tasks of Celery's schedule, which every beat reads."""
    return set(
        project.python(
            """
            from celery import current_app
            result = [entry["task"] for entry in current_app.conf.beat_schedule.values()]
            """
        )
    )


class WithProcesses:
    """The processes that the page names run all the time."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def processes(cls, project: Project) -> Iterator[list[Process]]:
        with project.processes() as running:
            yield running

    def test_a_rollback_leaves_no_message(self, project: Project) -> None:
        enqueue(project, "tasks.note.delay('rolled back')", rollback=True)
        enqueue(project, "tasks.note.delay('after it')")
        project.await_effect("after it")
        assert rows(project, "rolled back") == []
        assert project.times("rolled back") == 0

    def test_a_commit_runs_the_task_once(self, project: Project) -> None:
        enqueue(project, "tasks.note.delay('committed')")
        await_status(project, "committed", "done")
        assert project.times("committed") == 1

    def test_a_task_that_fails_is_run_again(self, project: Project) -> None:
        enqueue(project, "tasks.third_time.delay('third time')")
        await_status(project, "third time", "done")
        assert (project.times("third time:run"), project.times("third time")) == (3, 1)

    def test_a_task_that_retries_itself_is_run_again(self, project: Project) -> None:
        enqueue(project, "tasks.retries_by_hand.delay('by hand')")
        await_status(project, "by hand", "done")
        assert (project.times("by hand:run"), project.times("by hand")) == (2, 1)

    def test_a_killed_child_is_noticed_and_its_message_runs_again(self, project: Project) -> None:
        enqueue(project, "tasks.killed_once.delay('child')")
        await_status(project, "child", "done", timeout_s=60)
        assert (project.times("child:run"), project.times("child")) == (2, 1)

    def test_a_message_that_kills_its_process_each_time_ends_dead(self, project: Project) -> None:
        enqueue(project, "tasks.killed_always.delay('poison')")
        await_status(project, "poison", "dead", timeout_s=90)
        assert project.times("poison:run") == 5

    def test_a_hard_time_limit_ends_in_a_dead_message(self, project: Project) -> None:
        enqueue(project, "tasks.over_its_time.delay('too long')")
        await_status(project, "too long", "dead")
        assert project.times("too long") == 0

    def test_a_task_that_runs_out_of_memory_ends_dead(self, project: Project) -> None:
        """The worker goes on."""
        enqueue(project, "tasks.out_of_memory.delay('memory')")
        await_status(project, "memory", "dead")
        enqueue(project, "tasks.note.delay('after memory')")
        await_status(project, "after memory", "done")

    def test_a_task_that_this_worker_does_not_know_is_put_off(self, project: Project) -> None:
        project.python(
            """
            from django.db import transaction
            from outbox.models import OutboxMessage
            from shop import tasks
            with transaction.atomic():
                tasks.note.delay('renamed')
                OutboxMessage.objects.filter(args__0='renamed').update(task='shop.tasks.renamed')
            """
        )
        await_(lambda: rows(project, "renamed")[0]["errors"], "the refusal is recorded")
        assert rows(project, "renamed")[0]["status"] == "scheduled"

    def test_a_replayed_message_runs_again_and_is_settled(self, project: Project) -> None:
        enqueue(project, "tasks.wrong_until_mended.delay('mended')")
        await_status(project, "mended", "dead")
        project.python("from shop import tasks; tasks.did('mended:mended')")
        self.replay(project, "mended")
        await_status(project, "mended", "done")
        assert project.times("mended") == 1

    def replay(self, project: Project, name: str) -> None:
        raise NotImplementedError


class Killed:
    """Each test kills what it has started."""

    def test_a_killed_worker_loses_nothing_and_its_message_runs_again(self, project: Project) -> None:
        enqueue(project, "tasks.waits.delay('worker')")
        with project.processes("outbox_relay"):
            with project.processes("worker") as (worker,):
                project.await_effect("worker:run")
                os.killpg(worker.pid, signal.SIGKILL)
            with project.processes("worker"):
                await_status(project, "worker", "done", timeout_s=60)
        assert (project.times("worker:run"), project.times("worker")) == (2, 1)

    def test_a_broker_that_forgets_everything_loses_nothing(self, project: Project) -> None:
        enqueue(project, "[tasks.note.delay(f'flushed {n}') for n in range(20)]")
        with project.processes("outbox_relay"):
            await_(
                lambda: all(rows(project, f"flushed {n}")[0]["status"] == "published" for n in (0, 19)),
                "published",
            )
            project.flushall()
            with project.processes("worker"):
                await_status(project, "flushed 19", "done", timeout_s=60)
                for n in range(20):
                    await_status(project, f"flushed {n}", "done", timeout_s=60)
        assert [project.times(f"flushed {n}") for n in range(20)] == [1] * 20

    def test_a_killed_relay_loses_nothing(self, project: Project) -> None:
        with project.processes("worker"):
            with project.processes("outbox_relay") as (relay,):
                os.killpg(relay.pid, signal.SIGKILL)
            enqueue(project, "tasks.note.delay('no relay')")
            time.sleep(0.5)
            assert project.times("no relay") == 0
            with project.processes("outbox_relay"):
                await_status(project, "no relay", "done")
        assert project.times("no relay") == 1
