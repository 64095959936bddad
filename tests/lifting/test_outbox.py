"""outbox/ alone: the steps of the page, and then what is killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lifting import promises
from tests.lifting.project import PSYCOPG2, PSYCOPG3, Project, made

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module", params=[PSYCOPG3, PSYCOPG2], ids=str)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    directory = tmp_path_factory.mktemp("outbox")
    with made(directory / "project", "outbox/ alone", combination=request.param) as project:
        yield project


class TestWithProcesses(promises.WithProcesses):
    def replay(self, project: Project, name: str) -> None:
        """What the admin's action does, and a shell can."""
        project.python(
            f"""
            from outbox.models import OutboxMessage
            from outbox import transitions
            message = OutboxMessage.objects.get(args__0={name!r})
            assert transitions.replay(message.message_id)
            """
        )


class TestKilled(promises.Killed):
    pass
