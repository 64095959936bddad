"""Nothing imports in a circle: neither the modules of a package nor the packages, lazy and type-only imports included.

What may import what is said by the contracts in pyproject.toml; without circles there is an order in which to read the code.
"""

from __future__ import annotations

from functools import cache
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

from lab.stack.stack import ROOT

PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests")
#: Parts of a package that stand on a floor of their own: what shows the whole of an order, above payments/, and the client
#: of the payment gateway, below orders/.
FLOORS = {
    "orders.admin": "orders pages",
    "orders.api": "orders pages",
    "orders.journey": "orders pages",
    "orders.apps": "orders pages",  # connects the receiver of a signal that is in orders.api
    "payments.gateway": "payments.gateway",
}


@cache
def _imports() -> frozenset[tuple[str, str]]:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    return frozenset(
        (one, to) for one in graph.modules for to in graph.find_modules_directly_imported_by(one)
    )


def _circle(imports: set[tuple[str, str]]) -> str:
    """One circle of these imports, '' when there is none."""
    graph: dict[str, set[str]] = {}
    for one, to in imports:
        if one != to:
            graph.setdefault(one, set()).add(to)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def _floor(module: str) -> str:
    parts = module.split(".")
    return FLOORS.get(".".join(parts[:2]), parts[0])


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_in_a_circle(package: str) -> None:
    within = {(one, to) for one, to in _imports() if one.split(".")[0] == package == to.split(".")[0]}
    assert _circle(within) == ""


def test_no_package_imports_in_a_circle() -> None:
    assert _circle({(_floor(one), _floor(to)) for one, to in _imports()}) == ""


def test_a_circle_is_seen() -> None:
    assert _circle({("a", "b"), ("b", "c"), ("c", "a")}) in (
        "a <- c <- b <- a",
        "b <- a <- c <- b",
        "c <- b <- a <- c",
    )
