"""`make proof`: first what may run side by side, then what needs the machine for itself."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest

from lab.stack.processes import die_with_parent

#: In the order of collection: xdist would begin with the files that have the most tests, which are not the longest.
SIDE_BY_SIDE = (
    *("-m", "proof and not alone"),
    *("--numprocesses", "2", "--dist", "loadfile", "--no-loadscope-reorder"),
)
ALONE = ("-m", "proof and alone")


def main(arguments: list[str]) -> int:
    """Exit status: that of the first part that failed; a part of which `arguments` choose nothing does not count."""
    results = []
    for part in (SIDE_BY_SIDE, ALONE):
        result = _run([sys.executable, "-m", "pytest", *part, *arguments])
        if result < 0 or result == pytest.ExitCode.INTERRUPTED:
            return abs(result)
        results.append(result)
    nothing = int(pytest.ExitCode.NO_TESTS_COLLECTED)
    counted = [result for result in results if result != nothing]
    return next((result for result in counted if result), 0) if counted else nothing


def _run(command: list[str]) -> int:
    """A Ctrl-C reaches it from the terminal and a SIGTERM from here; it ends what it has started, and we wait for that."""
    # Before the handlers are there, a SIGTERM ends this process alone; then the kernel passes it on.
    with subprocess.Popen(command, preexec_fn=die_with_parent(signal.SIGTERM)) as process:

        def pass_on(signum: int, _: Any) -> None:
            if signum != signal.SIGINT:
                process.send_signal(signum)

        before = {signum: signal.signal(signum, pass_on) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            return process.wait()
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
