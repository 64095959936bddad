"""What each user may do at the desk, by permission, and the name of the one that is lacking."""

from __future__ import annotations

from django.http import HttpRequest

#: What is done -> the permission that it takes, and its name in Django's own list.
PERMISSIONS = {
    "view": ("dlq.view_deadletter", "Can view dead letter"),
    "replay": ("dlq.replay_deadletter", "Can replay dead letters"),
    "edit": ("dlq.edit_deadletter", "Can edit and replay dead letters"),
    "discard": ("dlq.discard_deadletter", "Can discard dead letters"),
    "export": ("dlq.export_deadletter", "Can export dead letters"),
    "raw": ("dlq.view_raw_deadletter", "Can see and download messages as received, secrets included"),
}


def may(request: HttpRequest, what: str) -> bool:
    """Whether the user of this request may do it."""
    return request.user.has_perm(PERMISSIONS[what][0])


def lacking(what: str) -> str:
    """A sentence for users who may not."""
    codename, name = PERMISSIONS[what]
    return f"You lack the permission “{name}” ({codename})."
