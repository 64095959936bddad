"""Removes a guard from the product's source while it is being imported, in this process only."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Patch:
    """In `module`, `old` becomes `new`. `old` must be there exactly once."""

    module: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """A guard removed, and what must notice it: `caught_by` begins the violation that `scenario` under `strike` shows.

    `without`: SQL that takes the database's own guard away, with the SQL that puts it back.
    """

    name: str
    patches: tuple[Patch, ...]
    scenario: str
    strike: str
    caught_by: str
    without: tuple[tuple[str, str], ...] = field(default=())


class MutationIsStale(ValueError):
    """The source has changed: the patch does not fit any more. Adapt it in lab/faultpoints/mutations.py."""


class _Loader(importlib.machinery.SourceFileLoader):
    patches: Sequence[Patch] = ()

    def get_code(self, fullname: str) -> Any:
        # Past the cache of compiled modules.
        return self.source_to_code(self.get_data(self.path), self.path)

    def get_data(self, path: str) -> bytes:
        text = super().get_data(path).decode()
        for patch in self.patches:
            if text.count(patch.old) != 1:
                raise MutationIsStale(f"{patch.module} has {text.count(patch.old)} times: {patch.old!r}")
            text = text.replace(patch.old, patch.new)
        return text.encode()


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, patches: Sequence[Patch]) -> None:
        self._patches = patches

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        mine = [patch for patch in self._patches if patch.module == fullname]
        if not mine:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert spec is not None
        assert spec.origin is not None
        loader = _Loader(fullname, spec.origin)
        loader.patches = mine
        return importlib.util.spec_from_file_location(fullname, spec.origin, loader=loader)


def remove_guards(patches: Sequence[Patch]) -> None:
    """From now on, import these modules with their guards removed. Raises MutationIsStale at the import."""
    imported = [patch.module for patch in patches if patch.module in sys.modules]
    assert not imported, f"too late: {imported}"
    sys.meta_path.insert(0, _Finder(patches))
