"""A copy of this checkout, with servers, logs and settings of its own: what a user has who runs `make up` there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.collect import Sandbox
from lab.stack import Stack
from lab.stack.leftovers import leftovers
from lab.stack.processes import free_port
from lab.stack.stack import ROOT

NOT_OURS = shutil.ignore_patterns(".git", ".venv", "var", "tests", "docs", "__pycache__", ".*_cache")
# The servers of this test run, which would win over the ones that are to be started.
INHERITED = (
    *("DATABASE_URL", "BROKER_URL", "REDIS_URL", "SECRET_KEY", "STRIPE_API_BASE", "STRIPE_API_KEY"),
    *("STRIPE_WEBHOOK_SECRET", "WAREHOUSE_URL", "CRM_URL", "EMAIL_URL", "SANDBOX_PORT", "SANDBOX_SMTP_PORT"),
    "DJANGO_SETTINGS_MODULE",
)


class Checkout:
    """A copy of this checkout, with its own var/."""

    def __init__(self, path: Path):
        self.path = path
        self.var = path / "var"
        self.log = path.parent / "output.txt"
        self.started: list[subprocess.Popen[bytes]] = []

    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name not in INHERITED}

    def start(
        self, *arguments: str, before_exec: Callable[[], None] | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.path,
                env={**self.environment(), **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=before_exec,
            )
        self.started.append(process)
        return process

    def wait_for(self, words: str, process: subprocess.Popen[bytes], seconds: float = 90.0) -> str:
        """The first line that begins with these words."""
        give_up_at = time.monotonic() + seconds
        while True:
            text = self.log.read_text(errors="replace")
            for line in text.splitlines():
                if line.startswith(words):
                    return line
            assert process.poll() is None, text
            assert time.monotonic() < give_up_at, text
            time.sleep(0.05)

    def manage(self, *arguments: str) -> str:
        """What `manage.py` prints, with the settings of the stack that runs here; AssertionError unless it ends well."""
        ended = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=self.path,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def left(self) -> list[int]:
        postgres = Stack(self.var, title="test", env_file=None)._postgres_home()
        return [each.pid for each in leftovers(self.var.resolve(), homes=[postgres])]


@contextmanager
def copied() -> Iterator[Checkout]:
    """A checkout that is gone afterwards, with all that was started in it. AssertionError if anything was left running."""
    parent = Path(tempfile.mkdtemp(prefix="hf-up-"))
    shutil.copytree(ROOT, parent / "holdfast", ignore=NOT_OURS)
    checkout = Checkout(parent / "holdfast")
    try:
        yield checkout
    finally:
        for process in checkout.started:
            process.kill()
            process.wait()
        left = checkout.left()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        Stack(checkout.var, title="test", env_file=None).erase()
        Stack(checkout.var / "demo", title="test", env_file=None).erase()
        shutil.rmtree(parent)
    assert left == [], "processes were left behind"


@dataclass(frozen=True)
class Up:
    """What `make up` says of itself when it is ready, and where its things are."""

    checkout: Checkout
    url: str
    admin_password: str

    @property
    def api_key(self) -> str:
        return (self.checkout.var / "demo-api-key").read_text().strip()

    @property
    def sandbox(self) -> Sandbox:
        return Sandbox((self.checkout.var / "sandbox-url").read_text().strip())


@contextmanager
def up(checkout: Checkout, **environment: str) -> Iterator[Up]:
    """`make up` in this checkout, ended as by Ctrl-C."""
    port = free_port()
    process = checkout.start("-m", "lab.up", PORT=str(port), **environment)
    checkout.wait_for("ready ", process)
    password = checkout.wait_for("admin ", process).partition("password ")[2].split()[0]
    try:
        yield Up(checkout, f"http://127.0.0.1:{port}", password)
    except BaseException:
        sys.stderr.write(f"--- output of lab.up ---\n{checkout.log.read_text()[-8000:]}\n")
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert process.returncode == 0
