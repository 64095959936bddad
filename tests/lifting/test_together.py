"""outbox/ and dlq/ together: the same promises, with a dead letter of what died, and its replay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lifting import desk, promises
from tests.lifting.project import COMBINATIONS, Project, made
from tests.support.processes import await_

pytestmark = pytest.mark.proof


def dead_letters(project: Project, name: str) -> list[dict[str, object]]:
    found = project.python(
        f"""
        from dlq.models import DeadLetter
        result = list(DeadLetter.objects.filter(args__0={name!r}).values("state", "cause", "exception"))
        """
    )
    assert isinstance(found, list)
    return found


@pytest.fixture(scope="module", params=COMBINATIONS, ids=str)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    directory = tmp_path_factory.mktemp("together")
    with made(directory / "project", "outbox/ and dlq/ together", combination=request.param) as project:
        yield project


class TestWithProcesses(promises.WithProcesses):
    def replay(self, project: Project, name: str) -> None:
        found = dead_letters(project, name)
        assert [dead_letter["state"] for dead_letter in found] == ["open"]
        project.python(
            f"""
            from dlq import replay
            replay.replay(DeadLetter.objects.get(args__0={name!r}).pk)
            """
        )
        await_(lambda: dead_letters(project, name)[0]["state"] == "resolved", "the dead letter is resolved")
        assert project.times(name) == 1

    def test_the_pages_of_the_desk_send_a_dead_letter_again(self, project: Project) -> None:
        promises.enqueue(project, "tasks.wrong_until_mended.delay('by the desk')")
        promises.await_status(project, "by the desk", "dead")
        project.python("from shop import tasks; tasks.did('by the desk:mended')")
        pk = project.python(
            "from dlq.models import DeadLetter; result = DeadLetter.objects.get(args__0='by the desk').pk"
        )
        desk.replay(project, pk)
        await_(
            lambda: dead_letters(project, "by the desk")[0]["state"] == "resolved",
            "the dead letter is resolved",
        )
        assert project.times("by the desk") == 1

    def test_any_beat_has_old_messages_deleted_and_lost_replays_given_up(self, project: Project) -> None:
        assert promises.scheduled(project) == {"outbox.retention.prune", "dlq.unanswered.reopen"}


class TestKilled(promises.Killed):
    pass
