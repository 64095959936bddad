"""Dockerfile and docker-compose.yml, without an engine: compose itself accepts them, and every name in them exists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.conf import settings
from django.core.management import get_commands

from config.queues import TIERS
from config.variables import VARIABLES
from lab.sandbox.__main__ import _parser as sandbox_parser
from lab.stack.stack import ROOT

REQUIRED = (
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
    "SECRET_KEY",
    "STRIPE_API_KEY",
    "STRIPE_WEBHOOK_SECRET",
    "EMAIL_URL",
    "WAREHOUSE_URL",
    "CRM_URL",
)
# Names of the images, not of Holdfast.
FOREIGN_SERVICES = {"postgres", "redis", "rabbitmq", "prometheus", "grafana"}


def compose(**environment: str) -> subprocess.CompletedProcess[str]:
    """Docker Compose's own reading of the file: schema, profiles, anchors and variables."""
    return subprocess.run(
        [Path(sys.executable).parent / "docker-compose", "--profile", "*", "config", "--format", "json"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    answer = compose(**dict.fromkeys(REQUIRED, "given"))
    assert answer.returncode == 0, answer.stderr
    found: dict[str, dict[str, Any]] = json.loads(answer.stdout)["services"]
    return found


def seconds(duration: str) -> float:
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", duration))


def command(service: dict[str, Any]) -> list[str]:
    given = service.get("command")
    return [str(word) for word in given] if given else []


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_secret_stops_compose_with_its_name(name: str) -> None:
    answer = compose(**{each: "given" for each in REQUIRED if each != name})
    assert answer.returncode != 0
    assert name in answer.stderr


def test_no_command_line_has_a_secret_and_the_port_is_local() -> None:
    """The web port is open to this machine alone."""
    answer = compose(**{name: f"canary-{name}" for name in REQUIRED})
    services = json.loads(answer.stdout)["services"]
    assert "canary" not in " ".join(word for service in services.values() for word in command(service))
    assert [port["host_ip"] for port in services["web"]["ports"]] == ["127.0.0.1"]


def test_every_service_has_a_health_check_or_ends_by_itself(services: dict[str, dict[str, Any]]) -> None:
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"migrate"}


def test_every_process_of_the_procfile_is_a_service(services: dict[str, dict[str, Any]]) -> None:
    procfile = {line.partition(":")[0] for line in (ROOT / "Procfile").read_text().splitlines()}
    assert procfile <= set(services)


def test_every_environment_name_exists(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if name not in FOREIGN_SERVICES:
            assert set(service["environment"]) <= set(VARIABLES), name


def test_what_the_application_requires_is_given(services: dict[str, dict[str, Any]]) -> None:
    required = {name for name, variable in VARIABLES.items() if variable.default is None}
    for name in ("web", "migrate", "relay", "beat", *TIERS):
        assert required <= set(services[name]["environment"]), name


def test_every_command_exists(services: dict[str, dict[str, Any]]) -> None:
    seen = set()
    for name, service in services.items():
        words = command(service)
        if name in FOREIGN_SERVICES or not words:
            continue
        seen.add(name)
        if words[:2] == ["python", "manage.py"]:
            assert words[2] in get_commands(), name
        else:
            assert words[:3] == ["celery", "-A", "config"], name
            assert words[3] in ("worker", "beat"), name
    assert seen == {"migrate", "relay", "beat", *TIERS}


def test_each_worker_serves_its_tier_with_the_tiers_share(services: dict[str, dict[str, Any]]) -> None:
    for tier, share in TIERS.items():
        words = command(services[tier])
        assert words[words.index("-Q") + 1] == tier
        assert words[words.index("-c") + 1] == str(share)


def test_workers_may_finish_what_they_run_before_they_are_killed(services: dict[str, dict[str, Any]]) -> None:
    current_app.loader.import_default_modules()
    limits = [task.time_limit or 0 for task in current_app.tasks.values()]
    longest = max([settings.CELERY_TASK_TIME_LIMIT, *limits])
    for tier in TIERS:
        assert seconds(services[tier]["stop_grace_period"]) > longest, tier
        # With it SIGTERM would give back after ten seconds what still runs (docs/decisions/0006).
        assert "REMAP_SIGTERM" not in services[tier]["environment"], tier
    assert "REMAP_SIGTERM" not in (ROOT / "Dockerfile").read_text() + (ROOT / "Procfile").read_text()


def test_nothing_runs_as_root_or_may_write_its_own_code(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if name not in FOREIGN_SERVICES:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
    # Per stage, the last word on the user is holdfast.
    for stage in re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]:
        users = re.findall(r"^USER (\S+)", stage, flags=re.MULTILINE)
        assert not users or users[-1] == "holdfast"


def test_optional_services_are_behind_their_profiles(services: dict[str, dict[str, Any]]) -> None:
    profiles = {name: service["profiles"] for name, service in services.items() if service.get("profiles")}
    monitoring = {"prometheus": ["monitoring"], "grafana": ["monitoring"]}
    assert profiles == {"rabbitmq": ["rabbitmq"], "sandbox": ["sandbox"], **monitoring}


def test_the_dockerfile_copies_every_production_package_and_only_what_exists() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = {
        word
        for line in re.findall(r"^COPY (.+) \S+$", dockerfile, flags=re.MULTILINE)
        for word in line.split()
    }
    assert all((ROOT / name).exists() for name in copied)
    packages = {app for app in settings.INSTALLED_APPS if (ROOT / app).is_dir()} | {"config", "resilience"}
    assert packages <= copied
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(ignored), "the build would not find it"


def test_the_images_programs_exist() -> None:
    commands = [
        json.loads(line)
        for line in re.findall(r"^CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    ]
    web, sandbox = commands
    assert web[0] == "gunicorn"
    assert callable(import_module(web[1]).application)
    assert sandbox[:3] == ["python", "-m", "lab.sandbox"]
    sandbox_parser().parse_args(sandbox[3:])
