"""What every server of the stack has in common: a directory, a port of its own, a process."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from lab.stack import processes
from lab.stack.errors import StackError


class Server:
    """One server with its data in ``directory``, on a free loopback port. A subclass starts and stops its program."""

    PROGRAM: ClassVar[str]
    PORT_TRIES: ClassVar[int] = 5
    #: What its log says of a port that is taken, within its last so many characters.
    PORT_IS_TAKEN: ClassVar[tuple[str, int]] = ("in use", 2_000)

    def __init__(self, directory: Path, *, log: Path, env: dict[str, str], port: int = 0):
        self.directory = directory
        self.log = log
        self.port = port  # wished for; the first start() takes another one if it is taken
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        # Others have our address: from the first start on there is no other port.
        self._known = False

    def home(self) -> Path:
        """Where the data is."""
        return self.directory

    def died(self) -> bool:
        """Whether it ended without `stop`."""
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        """End the process, if there is one."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL, as a machine that loses its power; `start` brings it back on the same port."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to the server, SIGSTOP to freeze it for one."""
        assert self._process is not None, "it is not started"
        self._process.send_signal(number)

    def _start_on_a_port(self, run: Callable[[], None]) -> None:
        """`run` starts the program on `self.port` and waits until it answers. Raises its StackError."""
        for tries_left in reversed(range(self.PORT_TRIES)):
            self.port = processes.port_for(self.port, insist=self._known, name=self.PROGRAM)
            try:
                run()
            except StackError:
                self.stop()
                # Between choosing a free port and binding it somebody else may have taken it.
                words, within = self.PORT_IS_TAKEN
                if not tries_left or words not in self.log.read_text(errors="replace")[-within:]:
                    raise
            else:
                self._known = True
                return
