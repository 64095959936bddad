"""Starting, stopping and finding the stack's processes.

Four layers keep the promise *no process is left behind*:

1. the owner stops what it started (``stop``);
2. if the owner is killed, the kernel signals its children (``die_with_parent``);
3. what carries the stack's mark and was not stopped by then is found by ``lab.stack.leftovers`` and ended when the
   stack stops, as a process whose start a signal interrupted;
4. what survived the death of its owner (grandchildren such as Celery's pool) is ended in the same way at the next start.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lab.stack.errors import StackError

PR_SET_PDEATHSIG = 1
# Loaded at import: between fork and exec only async-signal-safe work is allowed, and dlopen is not.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

# Environment variable that every process of a stack carries, with the stack's directory as its value. It is how
# ``leftovers`` proves that a process is ours; a pid alone proves nothing, since the system reuses them.
OWNER = "HOLDFAST_STACK"


def free_port(wanted: int = 0) -> int:
    """A TCP port that was free on the loopback interface a moment ago: ``wanted`` if it is, else any."""
    if wanted and not why_not_listen("127.0.0.1", wanted):
        return wanted
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_for(wanted: int, *, insist: bool, name: str, seconds: float = 30.0) -> int:
    """``free_port``, or with ``insist`` the wanted one: waits for it, then StackError."""
    if not insist:
        return free_port(wanted)
    give_up_at = time.monotonic() + seconds
    while error := why_not_listen("127.0.0.1", wanted):
        if error.errno != errno.EADDRINUSE:
            raise StackError(f"{name} cannot start again on its port {wanted}: {error.strerror}")
        if time.monotonic() > give_up_at:
            raise StackError(
                f"{name} cannot start again: its port {wanted} was taken while it was down; stop what listens there"
            )
        time.sleep(0.1)
    return wanted


def why_not_listen(host: str, port: int) -> OSError | None:
    """Why this process cannot listen there; None when it can (a lingering TIME_WAIT does not count)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def die_with_parent(signum: int) -> Callable[[], None]:
    """A ``preexec_fn``: the kernel sends ``signum`` to the child when the thread that started it ends, however it does.

    Linux only; elsewhere it does nothing and ``leftovers`` cleans at the next start.
    """

    def arm() -> None:
        if _LIBC is not None:
            _LIBC.prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)

    return arm


def start(
    argv: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path,
    env: dict[str, str],
    parent_death_signal: int,
    user: tuple[int, int] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, so that a Ctrl-C at the terminal does not reach it before its clients.

    ``user`` is (uid, gid) to run as. Output is appended to ``log``.
    """
    identity = {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            start_new_session=True,
            preexec_fn=die_with_parent(parent_death_signal),
            **identity,  # type: ignore[call-overload]
        )


def stop(process: subprocess.Popen[bytes], steps: Iterable[tuple[int, float]]) -> None:
    """End the process: each step is a signal and how many seconds to wait after it. A last SIGKILL is added."""
    for signum, seconds in (*steps, (signal.SIGKILL, 10.0)):
        if process.poll() is not None:
            return
        process.send_signal(signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)


def kill_group(group: int, *, seconds: float = 10.0) -> None:
    """SIGKILL to every process of the group; returns when none of them runs any more.

    The kernel kills in its own time: who goes on at once may still meet what it has just killed. A zombie counts as
    gone, since in a container there may be no process that collects orphans.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    give_up_at = time.monotonic() + seconds
    while _has_running_member(group):
        if time.monotonic() > give_up_at:
            raise StackError(f"the processes of group {group} do not end though they were killed")
        time.sleep(0.01)


def _has_running_member(group: int) -> bool:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The command name, in parentheses, may hold anything; state, parent and group follow it.
            state, _, member_of = stat.read_text().rpartition(")")[2].split()[:3]
            if int(member_of) == group and state not in "ZX":
                return True
    return False


def wait_until_ready(
    process: subprocess.Popen[bytes],
    ready: Callable[[], bool],
    *,
    name: str,
    log: Path,
    seconds: float = 30.0,
) -> None:
    """Poll ``ready`` until it is true; StackError with the end of the log when the server died or time is up."""
    give_up_at = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None:
            raise StackError(f"{name} stopped while starting (exit {process.returncode}): {last_words(log)}")
        if time.monotonic() > give_up_at:
            raise StackError(f"{name} was not ready after {seconds:.0f} s: {last_words(log)} (log: {log})")
        time.sleep(0.02)


def last_words(log: Path) -> str:
    """The last line of a log, for a one-line error message."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it wrote nothing"
