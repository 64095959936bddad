"""monitoring/ alone: the probes answer, and the figures are those of the project's own source."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lifting.project import PSYCOPG2, PSYCOPG3, Combination, made

pytestmark = pytest.mark.proof


@pytest.mark.parametrize("combination", [PSYCOPG3, PSYCOPG2], ids=str)
def test_the_probes_answer_and_tell_what_is_missing(combination: Combination, tmp_path: Path) -> None:
    with made(tmp_path / "project", "monitoring/", combination=combination) as project:
        project.run("python manage.py check --fail-level WARNING")
        missing = project.python(
            """
            from django.conf import settings
            settings.CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
            result = client.get("/readyz").json()["missing"]
            """
        )
        assert list(missing) == ["broker"]
