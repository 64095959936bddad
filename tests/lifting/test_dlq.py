"""dlq/ alone: tasks go by Celery's own way, and what ends badly is a dead letter that can be sent again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lifting import desk, promises
from tests.lifting.project import PSYCOPG2, PSYCOPG3, Project, made
from tests.support.processes import await_

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module", params=[PSYCOPG3, PSYCOPG2], ids=str)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    directory = tmp_path_factory.mktemp("dlq")
    with (
        made(directory / "project", "dlq/ alone", combination=request.param) as project,
        project.processes(),
    ):
        project.python("from shop import tasks; from dlq.models import DeadLetter; from dlq import replay")
        yield project


def dead_letters(project: Project, **which: object) -> list[dict[str, object]]:
    found = project.python(
        f"result = list(DeadLetter.objects.filter(**{which!r}).values('id', 'state', 'cause'))"
    )
    assert isinstance(found, list)
    return found


def await_dead(project: Project, cause: str, **which: object) -> int:
    """The id of the dead letter."""
    await_(lambda: dead_letters(project, **which), f"a dead letter of {which}", 60)
    (dead_letter,) = dead_letters(project, **which)
    assert (dead_letter["state"], dead_letter["cause"]) == ("open", cause)
    assert isinstance(dead_letter["id"], int)
    return dead_letter["id"]


def test_a_task_that_works_leaves_no_dead_letter(project: Project) -> None:
    project.python("tasks.third_time.delay('fine')")
    project.await_effect("fine")
    assert dead_letters(project, args__0="fine") == []


def test_a_failure_is_a_dead_letter_and_its_replay_resolves_it(project: Project) -> None:
    project.python("tasks.wrong_until_mended.delay('mended')")
    dead_letter = await_dead(project, "failed", args__0="mended")
    project.python("tasks.did('mended:mended')")
    project.python(f"replay.replay({dead_letter})")
    await_(
        lambda: dead_letters(project, pk=dead_letter)[0]["state"] == "resolved", "the dead letter is resolved"
    )
    assert project.times("mended") == 1


def test_an_edited_copy_of_a_failure_runs_and_resolves_it(project: Project) -> None:
    project.python("tasks.wrong_until_mended.delay('misspelt')")
    dead_letter = await_dead(project, "failed", args__0="misspelt")
    project.python("tasks.did('spelt:mended')")
    project.python(
        f"from dlq.operations.edit import edit; edit({dead_letter}, {{'name': 'spelt'}}, actor='alice')"
    )
    await_(
        lambda: dead_letters(project, pk=dead_letter)[0]["state"] == "resolved", "the dead letter is resolved"
    )
    assert (project.times("spelt"), project.times("misspelt")) == (1, 0)


def test_the_pages_of_the_desk_send_a_dead_letter_again(project: Project) -> None:
    project.python("tasks.wrong_until_mended.delay('by the desk')")
    dead_letter = await_dead(project, "failed", args__0="by the desk")
    project.python("tasks.did('by the desk:mended')")
    desk.replay(project, dead_letter)
    await_(
        lambda: dead_letters(project, pk=dead_letter)[0]["state"] == "resolved", "the dead letter is resolved"
    )
    assert project.times("by the desk") == 1


def test_a_replay_that_fails_again_opens_it_again(project: Project) -> None:
    project.python("tasks.wrong_until_mended.delay('still wrong')")
    dead_letter = await_dead(project, "failed", args__0="still wrong")
    project.python(f"replay.replay({dead_letter})")
    await_(lambda: project.times("still wrong:run") == 2, "the second run")
    await_(lambda: dead_letters(project, pk=dead_letter)[0]["state"] == "open", "the dead letter is open")


def test_a_hard_time_limit_is_a_dead_letter(project: Project) -> None:
    project.python("tasks.over_its_time.delay('too long')")
    await_dead(project, "timeout", args__0="too long")


def test_a_message_that_kills_its_process_each_time_is_a_dead_letter(project: Project) -> None:
    project.python("tasks.killed_always.delay('poison')")
    await_dead(project, "lost", args__0="poison")


def test_a_message_whose_process_was_killed_once_runs_again(project: Project) -> None:
    project.python("tasks.killed_once.delay('child')")
    project.await_effect("child", 60)
    assert dead_letters(project, args__0="child") == []


def test_an_unknown_task_is_a_dead_letter(project: Project) -> None:
    project.python("tasks.note.app.send_task('shop.tasks.gone', ['unknown'])")
    await_dead(project, "unknown task", task="shop.tasks.gone")


def test_any_beat_gives_up_lost_replays(project: Project) -> None:
    assert promises.scheduled(project) == {"dlq.unanswered.reopen"}
