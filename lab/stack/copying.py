"""A copy of programs for a user who cannot reach the originals."""

from __future__ import annotations

import shutil
from pathlib import Path


def copy_to(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy(source, target)


def make_readable(tree: Path) -> None:
    """Give others what the owner may read and execute: a restrictive umask must not lock the server's user out."""
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (mode & 0o500) >> 6)
