"""Every setting that monitoring/ reads: Django settings, read at each use, each with a default, so that none is required.

The broker that `/readyz` asks is the one of the current Celery application, whatever namespace its configuration has.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings


def sources() -> Mapping[str, str]:
    """`MONITORING_SOURCES`: source (`outbox`, `dlq`, `findings`, `circuits`, `orders`, `webhooks`) -> dotted path of the
    callable with its figures, which `monitoring/sources.py` describes. Default {}: no figures, and the probes work.
    """
    return getattr(settings, "MONITORING_SOURCES", {})


def series() -> Mapping[str, str]:
    """`MONITORING_SERIES`: source -> dotted path of the callable that returns {series: number} for the control room's charts,
    see `monitoring/samples.py`. Default {}: no samples are taken, and the control room has no charts.
    """
    return getattr(settings, "MONITORING_SERIES", {})


def tables() -> Mapping[str, str]:
    """`MONITORING_TABLES`: title -> dotted path of the callable that returns the rows of this table of the control room:
    [{column: text or number}], in which `is_well`, where it is given, says whether the row is marked. Default {}.
    """
    return getattr(settings, "MONITORING_TABLES", {})


def invariants() -> Sequence[str]:
    """`MONITORING_INVARIANTS`: dotted paths of callables that return {invariant: [what breaks it]}. Default ().

    The control room calls them every few seconds: what they read must be bounded.
    """
    return getattr(settings, "MONITORING_INVARIANTS", ())


def panels() -> Sequence[str]:
    """`MONITORING_PANELS`: dotted paths of callables that are given the request and return HTML for the end of the control
    room, '' for none. Default ().
    """
    return getattr(settings, "MONITORING_PANELS", ())


def queues() -> tuple[str, ...]:
    """`MONITORING_QUEUES`: queues that are reported although nothing is in them. Default (): those with messages."""
    return tuple(getattr(settings, "MONITORING_QUEUES", ()))


def thresholds() -> Mapping[str, Any]:
    """`MONITORING_THRESHOLDS`: field of `monitoring.alerts.Thresholds` -> value. Default {}: those of the class."""
    return getattr(settings, "MONITORING_THRESHOLDS", {})


def metrics_token() -> str:
    """`MONITORING_METRICS_TOKEN`: the Bearer token that `/metrics` asks for. Default '': it answers without one."""
    return str(getattr(settings, "MONITORING_METRICS_TOKEN", ""))


def alert_emails() -> tuple[str, ...]:
    """`MONITORING_ALERT_EMAILS`: addresses to which what fires is sent. Default: those of Django's `ADMINS`."""
    admins = (admin if isinstance(admin, str) else admin[1] for admin in settings.ADMINS)
    return tuple(getattr(settings, "MONITORING_ALERT_EMAILS", None) or admins)


def alert_webhook_url() -> str:
    """`MONITORING_ALERT_WEBHOOK_URL`: the address that what fires is posted to, as JSON. Default '': nothing is posted."""
    return str(getattr(settings, "MONITORING_ALERT_WEBHOOK_URL", ""))


def alert_repeat_s() -> float:
    """`MONITORING_ALERT_REPEAT`: seconds after which an alert that still fires is sent again. Default: 14400, four hours."""
    return float(getattr(settings, "MONITORING_ALERT_REPEAT", 14_400.0))


def runbook() -> str:
    """`MONITORING_RUNBOOK_URL`: the page that says what to do about each alert; a link to one ends in # and its name.

    Default: `docs/operations.md`, of the checkout that the folder comes from.
    """
    return str(getattr(settings, "MONITORING_RUNBOOK_URL", "docs/operations.md"))


def ready_checks() -> Mapping[str, str]:
    """`MONITORING_READY_CHECKS`: name -> dotted path of a callable that raises when this process cannot do its work.

    Default: database, migrations and broker, of `monitoring/health.py`.
    """
    checks = ("database", "migrations", "broker")
    return getattr(
        settings, "MONITORING_READY_CHECKS", {name: f"monitoring.health.check_{name}" for name in checks}
    )
