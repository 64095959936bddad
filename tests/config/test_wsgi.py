"""A web process is ready when it says so: its first request waits for nothing that the start could have done."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support.processes import ROOT, environment, web

FIRST_REQUEST = """
import sys
from config.wsgi import application
from django.core.validators import validate_email
from django.test import Client
from django.utils.functional import empty

for pattern in (validate_email.user_regex, validate_email.domain_regex):
    assert pattern._wrapped is not empty, "compiled at its first use"
before = set(sys.modules)
answer = Client(SERVER_NAME="127.0.0.1").post("/api/orders", data={}, content_type="application/json")
assert answer.status_code == 401, answer.content
late = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(late - {"django", "encodings"}))
"""


@pytest.mark.django_db(transaction=True)
def test_the_first_request_imports_and_compiles_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FIRST_REQUEST], cwd=ROOT, env=environment({}), capture_output=True, text=True, check=False
    )  # fmt: skip
    assert ended.stdout == "[]\n", ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_gunicorn_leaves_nothing_in_its_users_home(tmp_path: Path) -> None:
    home, no_home = tmp_path / "home", tmp_path / "a file"
    home.mkdir()
    no_home.touch()
    for each in (home, no_home / "no directory can be here"):
        with web(env={"HOME": str(each), "XDG_RUNTIME_DIR": ""}) as (process, url):
            with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:
                assert answer.status == 200
            assert process.stop() == 0
            assert "control" not in process.output().lower()
            assert "[ERROR]" not in process.output()
    assert list(home.iterdir()) == []
