"""System checks: a wrong path would else be a page or a probe that fails on the day it is needed."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.utils.module_loading import import_string

from monitoring import conf, sources


@register(Tags.compatibility)
def check_paths(**_: Any) -> list[CheckMessage]:
    """Every dotted path of the settings can be imported, and every source is one that is read."""
    named = {
        "MONITORING_SOURCES": conf.sources().values(),
        "MONITORING_SERIES": conf.series().values(),
        "MONITORING_TABLES": conf.tables().values(),
        "MONITORING_INVARIANTS": conf.invariants(),
        "MONITORING_PANELS": conf.panels(),
        "MONITORING_READY_CHECKS": conf.ready_checks().values(),
    }
    problems: list[CheckMessage] = []
    for setting, paths in named.items():
        for path in paths:
            try:
                import_string(path)
            except Exception as error:  # Importing it may raise anything.
                text = f"{setting}: {path!r} cannot be imported: {error}"
                problems.append(Error(text, id="monitoring.E001"))
    if unknown := sorted(set(conf.sources()) - set(sources.ALL)):
        text = f"MONITORING_SOURCES: there is no source {', '.join(unknown)}; the sources are {', '.join(sources.ALL)}"
        problems.append(Error(text, id="monitoring.E002"))
    return problems


@register(Tags.compatibility)
def check_probes(**_: Any) -> list[CheckMessage]:
    """The probes answer ahead of everything else. Where `monitoring.urls` is included instead, silence it."""
    probes = "monitoring.middleware.Probes"
    if settings.MIDDLEWARE[:1] == [probes]:
        return []
    return [
        Warning(
            f"{probes!r} is not first in MIDDLEWARE: /healthz, /readyz and /metrics may be redirected or"
            " refused, as the rest of the site is",
            id="monitoring.W001",
        )
    ]
