"""When somebody should look: what fires now, with text, value, threshold, since when, and a link to what to do.

    for alert in current().alerts:
        page(alert.name, alert.text)

Evaluating sends nothing and remembers nothing, so each caller (the metrics, `/alerts.json`, `manage.py alerts`, a test)
gets the same answer.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from django.db import Error
from django.http import HttpRequest, HttpResponse, JsonResponse

from monitoring import access, conf, samples, sources
from monitoring.models import FiringAlert
from monitoring.rules import OTHER_SOURCE, RULES, Alert
from monitoring.snapshot import Snapshot, build
from monitoring.thresholds import Thresholds


def configured() -> Thresholds:
    """The defaults with this installation's overrides; TypeError names a threshold that does not exist."""
    return Thresholds(**conf.thresholds())


def evaluate(snapshot: Snapshot, thresholds: Thresholds | None = None) -> list[Alert]:
    """The alerts that fire, in the order of `RULES`; [] when all is well."""
    thresholds = thresholds or configured()
    fired = [alert for rule in RULES.values() if (alert := rule(snapshot, thresholds))]
    return [replace(alert, link=f"{conf.runbook()}#{alert.name}") for alert in fired]


@dataclass(frozen=True)
class Judgement:
    """What fires, and the rules that cannot judge because their source cannot be read."""

    alerts: list[Alert]
    unjudged: frozenset[str]


def judge(readings: Mapping[str, Mapping[str, Any]], unreadable: Mapping[str, str]) -> Judgement:
    """The rules over the sources that could be read; `unreadable`: source -> why the others could not."""
    # The samples are rows beside those of the outbox: where that cannot be read, they are not asked either.
    usual = samples.usual_per_minute() if sources.OUTBOX in readings else 0.0
    snapshot = build(readings, known=conf.queues(), unreadable=unreadable, usual_per_minute=usual)
    unjudged = frozenset(name for name in RULES if OTHER_SOURCE.get(name, sources.OUTBOX) in unreadable)
    return Judgement([alert for alert in evaluate(snapshot) if alert.name not in unjudged], unjudged)


def current() -> Judgement:
    """What fires now, by the figures of this moment, and since when beat has seen it fire."""
    found = judge(*sources.read_all())
    return Judgement(with_times(found.alerts), found.unjudged)


def with_times(alerts: list[Alert]) -> list[Alert]:
    """The same with `since`, as beat keeps it (`monitoring/notices.py`); None for what beat has not seen yet."""
    if not alerts:
        return []
    try:
        rows = {row.name: row for row in FiringAlert.objects.filter(resolved_at=None)}
    except Error:  # The database is down: that is what fires.
        return alerts
    return [
        replace(alert, since=row.since)
        if (row := rows.get(alert.name)) and not row.is_about_others(alert.about)
        else alert
        for alert in alerts
    ]


def as_json(alert: Alert) -> dict[str, Any]:
    """The alert as JSON-ready dict, its time in ISO 8601."""
    return asdict(alert) | {"since": alert.since and alert.since.isoformat()}


def alerts_json(request: HttpRequest) -> HttpResponse:
    """GET /alerts.json: {"alerts": [{"name", "text", "value", "threshold", "about", "since", "link"}], "unjudged": [name]}.

    401 as `/metrics` has it.
    """
    if refused := access.refused(request):
        return refused
    found = current()
    return JsonResponse(
        {"alerts": [as_json(alert) for alert in found.alerts], "unjudged": sorted(found.unjudged)}
    )
