"""What of the project no scenario covers, found in the project itself, so that new code is covered or missed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from http import HTTPMethod
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver

from lab.faultpoints.scenario import Scenario
from lab.faultpoints.scenarios import SCENARIOS

#: What changes nothing, or is a page for people over the services that have scenarios of their own.
_NOT_EXPLORED = ("/admin/", "/api/docs", "/api/openapi.json", "/control-room/", "/lab/")
#: The control room, which changes nothing; and ninja's own, which leads to the documentation.
_ROOTS = {"GET /", "GET /api/"}


def missing(scenarios: dict[str, Scenario] = SCENARIOS) -> list[str]:
    """Tasks and endpoints of the project that no scenario covers."""
    covered = {scenario.covers for scenario in scenarios.values()}
    return sorted({*_tasks(), *_endpoints(get_resolver().url_patterns, "/")} - covered - _ROOTS)


def _tasks() -> Iterator[str]:
    from config.celery import app

    app.loader.import_default_modules()
    yield from (name for name in app.tasks if not name.startswith(("celery.", "tests.")))


def _endpoints(patterns: list[Any], prefix: str) -> Iterator[str]:
    for pattern in patterns:
        path = prefix + str(pattern.pattern)
        if path.startswith(_NOT_EXPLORED):
            continue
        if isinstance(pattern, URLResolver):
            yield from _endpoints(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern):
            yield from (
                f"{method} {path}" for method in _methods(pattern.callback) or _named(pattern.callback)
            )


def _named(view: Any) -> set[str]:
    """The methods that a plain view compares `request.method` with; GET if none."""
    code = getattr(inspect.unwrap(view), "__code__", None)
    return {name for name in HTTPMethod if code is not None and name in code.co_consts} or {"GET"}


def _methods(view: Any, depth: int = 4) -> set[str]:
    """What a view takes: by ninja's operations of its path, or by what `require_http_methods` has closed over."""
    found: set[str] = set()
    for cell in getattr(view, "__closure__", None) or ():
        inside = cell.cell_contents
        if isinstance(inside, list) and all(isinstance(item, str) and item.isupper() for item in inside):
            found.update(set(inside) - {"HEAD"})
        elif operations := getattr(inside, "operations", None):
            found.update(method for operation in operations for method in operation.methods)
        elif callable(inside) and depth:
            found |= _methods(inside, depth - 1)
    return found
