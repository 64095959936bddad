"""What a stack keeps in its directory: the lock, the secrets, and the settings it hands to other terminals."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from pathlib import Path
from typing import IO

from lab.stack.errors import StackError

# name -> how a value that is missing is made. Kept between runs: sessions and stored signatures survive a restart.
SECRETS = {
    "SECRET_KEY": lambda: secrets.token_urlsafe(50),
    "POSTGRES_PASSWORD": lambda: secrets.token_hex(16),
    "REDIS_PASSWORD": lambda: secrets.token_hex(16),
    "STRIPE_API_KEY": lambda: f"sk_test_{secrets.token_hex(16)}",
    "STRIPE_WEBHOOK_SECRET": lambda: f"whsec_{secrets.token_hex(16)}",
}


#: Locks that this process holds.
_HELD: set[Path] = set()


class Lock:
    """One stack at a time in a directory. The kernel releases it when the holder ends, however it ends."""

    def __init__(self, path: Path):
        self._path = path
        self._file: IO[str] | None = None

    def take(self, title: str) -> None:
        """Take it for the command ``title``. StackError that names the holder when it is taken."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+")
        except PermissionError:
            raise StackError(
                f"{self._path.parent} belongs to another user: run as that user, or remove it"
            ) from None
        try:
            # A record lock, not flock(): forked children do not inherit it, so none of them can keep it alive.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise StackError(f"{self._path.parent} is in use by {holder}: stop it first") from None
        file.truncate(0)
        file.write(f"`{title}` (pid {os.getpid()})")
        file.flush()
        self._file = file
        _HELD.add(self._path.resolve())

    @property
    def is_taken(self) -> bool:
        """Whether this object holds it; another holder does not count."""
        return self._file is not None

    def release(self) -> None:
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None
            _HELD.discard(self._path.resolve())


def is_held(lock: Path) -> bool:
    """Whether a process that lives holds this lock.

    The kernel is not asked: to ask it the file must be opened, and a process that closes a file loses its own record
    locks on it. So the proof is the pid that is written in it, and that this process has it open.
    """
    if lock.resolve() in _HELD:
        return True
    try:
        written = re.search(r"\(pid (\d+)\)$", lock.read_text())
    except OSError:
        return False
    return written is not None and _has_open(Path("/proc") / written[1], lock.resolve())


def _has_open(process: Path, path: Path) -> bool:
    try:
        return any(os.readlink(file) == str(path) for file in (process / "fd").iterdir())
    except PermissionError:
        return True  # somebody else's, and alive
    except OSError:
        return False


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step; only its owner can read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with open(unfinished, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
    unfinished.replace(path)


def read_pairs(path: Path) -> dict[str, str]:
    """KEY=VALUE lines of a file; empty when there is none."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def write_pairs(path: Path, pairs: dict[str, str], *, title: str) -> None:
    write_private(path, "".join([f"# {title}\n", *(f"{name}={value}\n" for name, value in pairs.items())]))


def load_secrets(path: Path) -> dict[str, str]:
    """The secrets of this directory, made on first use."""
    known = read_pairs(path)
    complete = {name: known.get(name) or make() for name, make in SECRETS.items()}
    if complete != known:
        write_pairs(
            path, complete, title="Made by the embedded stack; delete the whole directory to start afresh."
        )
    return complete
