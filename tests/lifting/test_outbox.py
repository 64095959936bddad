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
        """The admin's action."""
        project.python(
            f"""
            from django.contrib.auth.models import User
            from django.test import Client
            from outbox.models import OutboxMessage

            message = OutboxMessage.objects.get(args__0={name!r})
            admin = Client(SERVER_NAME="localhost")
            admin.force_login(User.objects.create_superuser("operator"))
            chosen = {{"action": "replay_selected", "_selected_action": [message.pk]}}
            answer = admin.post("/admin/outbox/outboxmessage/", chosen, follow=True)
            assert "1 of 1 dead messages run again" in answer.content.decode()
            """
        )

    def test_any_beat_has_what_is_done_and_old_deleted(self, project: Project) -> None:
        assert promises.scheduled(project) == {"outbox.retention.prune"}


class TestKilled(promises.Killed):
    pass
