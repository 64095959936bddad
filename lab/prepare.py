"""Brings a fresh database to the point where the demo can place orders: tables, demo data, admin, Bearer key."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import django
from django.core.management import call_command

from lab.collect import Sandbox
from lab.stack import StackError
from lab.stack.stack import VAR
from lab.stack.state import write_private

DEMO_KEY = VAR / "demo-api-key"
ADMIN = "admin"

#: Longer than connecting to a database may take (`connect_timeout`), so that its own reason is shown.
ANSWER_SECONDS = 8.0


@dataclass(frozen=True)
class Prepared:
    """``api_key`` is the Bearer key; ``admin_password`` is None when the admin existed before (it is not stored)."""

    api_key: str
    admin_password: str | None


def configure(environment: Mapping[str, str]) -> None:
    """Set up Django in this process with the settings of a running stack."""
    os.environ.update(environment)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    logging.getLogger().setLevel(logging.WARNING)


def check_servers() -> None:
    """Ask each server once. StackError with one line that names the variables of those that do not answer.

    What the processes of the fleet would say about it is a thousand lines, and none of them names a variable.
    """
    from monitoring.health import check_broker, check_database, run_checks
    from resilience.connection import get_redis

    def check_redis() -> None:
        get_redis().ping()

    checks = {"DATABASE_URL": check_database, "BROKER_URL": check_broker, "REDIS_URL": check_redis}
    if missing := run_checks(checks, deadline_s=ANSWER_SECONDS):
        reasons = ", ".join(f"{name} ({reason})" for name, reason in missing.items())
        raise StackError(f"no answer from the servers of {reasons}: start them, or correct the variables")


def prepare(environment: Mapping[str, str], *, log: Path) -> Prepared:
    """Migrate and seed. May be called again on the same database: what exists stays as it is.

    Raises StackError when a server does not answer.
    """
    configure(environment)
    check_servers()
    from orders.seed import seed_demo as seed_orders
    from webhooks.seed import seed_demo as seed_webhooks

    with log.open("a") as output:
        call_command("migrate", interactive=False, stdout=output)
    seed_orders()
    seed_webhooks(f"{environment['STRIPE_API_BASE']}/merchants/{{customer_id}}/webhooks")
    return Prepared(api_key=_demo_key(DEMO_KEY), admin_password=_demo_admin())


def _demo_key(path: Path) -> str:
    from orders.models import ApiKey

    known = path.read_text().strip() if path.exists() else ""
    if known and ApiKey.objects.filter(key_hash=ApiKey.digest(known), is_active=True).exists():
        return known
    _, raw = ApiKey.issue("demo")
    write_private(path, f"{raw}\n")
    return raw


def _demo_admin() -> str | None:
    from django.contrib.auth import get_user_model

    users = get_user_model().objects
    if users.filter(username=ADMIN).exists():
        return None
    password = secrets.token_urlsafe(12)
    users.create_superuser(username=ADMIN, email="admin@holdfast.example", password=password)
    return password


def introduce_merchants(sandbox: Sandbox) -> None:
    """Give every merchant of the sandbox the secrets of its subscription, so that it checks our signatures."""
    from webhooks.models import Subscription

    for customer_id, secret in Subscription.objects.filter(is_active=True).values_list(
        "customer_id", "secret"
    ):
        sandbox.introduce_merchant(customer_id, secret)
