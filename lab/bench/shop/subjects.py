"""What is compared: this checkout, another commit of it, and the same domain on stock Celery."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.stack.stack import ROOT

#: What is measured against where no tag says more: the version before its costs were looked at.
FIRST = "12c3f57"
OURS, STOCK_CELERY = "this checkout", "stock Celery"
STOCK = "lab.bench.shop.stock"


@dataclass(frozen=True)
class Subject:
    """A shop: where its code is, and its settings."""

    name: str
    root: Path
    settings: str = "config.settings"

    def procfile(self) -> str:
        """Its processes, as its own Procfile has them; the outside world is the same one for all subjects."""
        lines = (self.root / "Procfile").read_text().splitlines()
        left_out = ("sandbox:", "relay:") if self.settings.startswith(STOCK) else ("sandbox:",)
        text = "".join(f"{line}\n" for line in lines if not line.startswith(left_out))
        if self.settings.startswith(STOCK):
            text = text.replace("config.wsgi", f"{STOCK}.wsgi").replace("-A config ", f"-A {STOCK} ")
        return text


@contextmanager
def subjects() -> Iterator[list[Subject]]:
    """The subjects of a run. The other commit (AGAINST) is checked out until the block ends, and is left out with a line if
    this clone does not have it.
    """
    found = [Subject(OURS, ROOT), Subject(STOCK_CELERY, ROOT, f"{STOCK}.settings")]
    wanted = os.environ.get("AGAINST") or _git("describe", "--tags", "--abbrev=0") or FIRST
    commit = _git("rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}")
    if not commit:
        print(
            f"bench: AGAINST={wanted}: no such commit in this clone, so that {OURS} and {STOCK_CELERY} run alone",
            file=sys.stderr,
            flush=True,
        )
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
        tree = Path(directory) / "tree"
        try:
            done = _run("worktree", "add", "--detach", "--quiet", str(tree), commit)
            if done.returncode:
                raise RuntimeError(f"cannot check {wanted} out: {done.stderr.strip()}")
            yield [found[0], Subject(commit[:7], tree), found[1]]
        finally:
            _git("worktree", "remove", "--force", str(tree))
    _git("worktree", "prune")


def _git(*arguments: str) -> str:
    done = _run(*arguments)
    return "" if done.returncode else done.stdout.strip()


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, 127, "", "there is no git")
