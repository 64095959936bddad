"""The dead-letter desk of a scratch project, used as an operator does: by its pages."""

from __future__ import annotations

from tests.lifting.project import Project


def replay(project: Project, dead_letter: int) -> None:
    """The action of the list, then the button of the page that asks."""
    project.python(
        f"""
        import re
        from django.contrib.auth import get_user_model
        from django.test import Client

        users = get_user_model().objects
        desk = Client(SERVER_NAME="localhost")
        desk.force_login(users.filter(username="operator").first() or users.create_superuser("operator"))
        for page in ("deadletter/groups/", "deadletter/?state__exact=open", "deadletter/{dead_letter}/change/", "operation/"):
            assert desk.get("/admin/dlq/" + page).status_code == 200, page
        asked = desk.post(
            "/admin/dlq/deadletter/?state__exact=open",
            {{"action": "replay_selected", "_selected_action": [{dead_letter}]}},
            follow=True,
        )
        ((operation, _),) = asked.redirect_chain
        proposed = dict(re.findall(r'name="(canary|rate|stop_above)" value="([0-9]*)"', asked.content.decode()))
        assert desk.post(operation, {{**proposed, "verb": "start"}}, follow=True).status_code == 200
        """
    )
