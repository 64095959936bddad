"""The README's walk to a dead letter and back: its commands, in their order, against the database."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.management import call_command

from outbox.testing import drain

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.mark.django_db(transaction=True)
def test_the_commands_of_the_dead_letter_walk_do_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    walk = README.read_text().split("## See a dead letter in two minutes\n", 1)[1].split("\n## ", 1)[0]
    commands = re.findall(r"^\.venv/bin/python manage\.py (.+)$", walk, re.MULTILINE)
    assert len(commands) == 5
    admin = User.objects.create_user("admin", "admin@example.com")
    said = []
    for command in commands:
        name, *arguments = shlex.split(command.replace("delay(1,", f"delay({admin.pk},"))
        call_command(name, *arguments)
        said.append(capsys.readouterr().out)
        drain()
    assert "open " in said[1]
    assert "UnknownTemplate: there is no email template named 'goodbye'" in said[1]
    assert said[3] == "1 sent again, 0 refused\n"
    assert "resolved " in said[4]
    assert [(email.to, email.subject) for email in mail.outbox] == [(["admin@example.com"], "Goodbye")]
