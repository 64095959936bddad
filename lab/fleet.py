"""Runs the processes of the Procfile.

The file's format and the look of the output are honcho's. Its Manager is not used: it stops everything when one process
ends, while here a worker that was killed (which is what this project is about) must come back, the sandbox must outlive
the workers that talk to it, and nothing may be left when the manager itself is killed.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from honcho.colour import get_colours
from honcho.environ import parse_procfile
from honcho.printer import Message, Printer

from lab.stack import StackError
from lab.stack.processes import die_with_parent, kill_group
from lab.stack.stack import ROOT

# Who stops when: first what takes in work, then what does it, at last the outside world that it talks to.
STOP_ORDER = (("web", "beat", "relay"), ("critical", "high", "default", "low"), ("sandbox",))
# A worker ends what it runs. What runs longer is killed with it, and requeued when the fleet is next started.
STOP_SECONDS = 20.0

# A process that ends by itself sooner than this after its start cannot run here (a missing module, a wrong setting), and
# is not started for ever. One that was killed by a signal can: somebody is trying what happens.
FAILED_START_SECONDS = 30.0
FAILED_STARTS = 3

Sink = Callable[[str, str], None]

# What the application logs of each request, and of each attempt of a task that went well or was deferred.
ROUTINE = (" INFO common.request_id: ", " INFO outbox.report: ")


def console() -> Sink:
    """Lines on the terminal behind time and name, in a colour per process; not the routine ones, which would hide the others."""
    printer = Printer(sys.stdout, width=8)
    colours = get_colours()
    chosen: dict[str, str] = {}

    def write(name: str, line: str) -> None:
        if any(part in line for part in ROUTINE):
            return
        colour = chosen.setdefault(name, next(colours))
        printer.write(Message("line", line, datetime.datetime.now(), name, colour))

    return write


def files(directory: Path) -> Sink:
    """Lines in one file a process, after those that are there."""
    directory.mkdir(parents=True, exist_ok=True)

    def write(name: str, line: str) -> None:
        # A full disk must not end the thread that reads: the process would wait for ever to be read.
        with contextlib.suppress(OSError), (directory / f"{name}.log").open("a") as file:
            file.write(line + "\n")

    return write


def both(one: Sink, other: Sink) -> Sink:
    """Lines in two places."""

    def write(name: str, line: str) -> None:
        one(name, line)
        other(name, line)

    return write


@dataclass
class _Program:
    name: str
    command: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    failed_starts: int = 0
    last_line: str = ""
    reader: threading.Thread | None = None
    environment: dict[str, str] = field(default_factory=dict)


class Fleet:
    """The processes of one Procfile, with ``environment``, writing to ``sink``.

    ``own`` adds variables for single programs. ``patient``: what cannot start is started for ever, as a supervisor does
    whose database may be down for a while. ``root``: the checkout in which the programs run.

    Not thread-safe, and to be used from the main thread: the kernel ends a process when the *thread* that started it
    ends.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        sink: Sink,
        *,
        procfile: Path = ROOT / "Procfile",
        own: Mapping[str, Mapping[str, str]] | None = None,
        patient: bool = False,
        root: Path = ROOT,
    ):
        # The tools of this interpreter's environment come first, whatever is on PATH.
        path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
        self._environment = {**environment, "PATH": path, "PYTHONUNBUFFERED": "1"}
        self._sink = sink
        self.patient = patient
        self._root = root
        parsed = parse_procfile(procfile.read_text())
        self._programs = {name: _Program(name, command) for name, command in parsed.processes.items()}
        for name, variables in (own or {}).items():
            self._programs[name].environment.update(variables)

    @property
    def names(self) -> list[str]:
        return list(self._programs)

    def pid(self, name: str) -> int | None:
        """The pid of a program that runs now."""
        process = self._programs[name].process
        return process.pid if process is not None and process.returncode is None else None

    def set_variables(self, name: str, variables: Mapping[str, str | None]) -> None:
        """From the program's next start on; None takes a variable away."""
        own = self._programs[name].environment
        for variable, value in variables.items():
            if value is None:
                own.pop(variable, None)
            else:
                own[variable] = value

    def start(self) -> None:
        for program in self._programs.values():
            self._start(program)

    def watch(self) -> None:
        """Start again what has ended. To be called several times a second; StackError when a process keeps ending."""
        now = time.monotonic()
        for program in self._programs.values():
            if program.process is None:
                if now >= program.start_at:
                    self._start(program)
                continue
            code = program.process.poll()
            if code is None:
                continue
            kill_group(program.process.pid)
            failed = code > 0 and now - program.started_at < FAILED_START_SECONDS
            program.failed_starts = program.failed_starts + 1 if failed else 0
            if program.failed_starts >= FAILED_STARTS and not self.patient:
                self._join(program)
                raise StackError(f"{program.name} keeps stopping (exit {code}): {program.last_line}")
            program.process = None
            program.start_at = now + 0.5 * 2 ** min(program.failed_starts, FAILED_STARTS)
            self._sink(program.name, f"stopped (exit {code}), starting again")

    def stop(self) -> None:
        """End everything, politely and then by force, in ``STOP_ORDER``; returns when all of it is gone."""
        for names in STOP_ORDER:
            group = [self._programs[name] for name in names if name in self._programs]
            running = [program for program in group if program.process is not None]
            for program in running:
                self._signal(program, signal.SIGTERM)
            give_up_at = time.monotonic() + STOP_SECONDS
            for program in running:
                assert program.process is not None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    program.process.wait(timeout=max(0.0, give_up_at - time.monotonic()))
                # Whatever is left of its group too: a pool child whose parent died early has no one else to end it.
                kill_group(program.process.pid)
                program.process.wait()
                self._join(program)
                program.process = None

    def _start(self, program: _Program) -> None:
        program.process = subprocess.Popen(
            ["/bin/sh", "-c", program.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._root,
            env={**self._environment, **program.environment},
            # Its own group: a Ctrl-C at the terminal reaches only us, and we decide who stops when.
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        program.started_at = time.monotonic()
        program.reader = threading.Thread(
            target=self._relay_output, args=(program, program.process), daemon=True
        )
        program.reader.start()

    def _relay_output(self, program: _Program, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace").rstrip()
                program.last_line = line or program.last_line
                self._sink(program.name, line)

    def _signal(self, program: _Program, signum: int) -> None:
        assert program.process is not None
        # Only to the leader: Celery and gunicorn stop their own children, and a pool child that got the signal too
        # would drop its task.
        with contextlib.suppress(ProcessLookupError):
            program.process.send_signal(signum)

    def _join(self, program: _Program) -> None:
        if program.reader is not None:
            program.reader.join(timeout=2.0)
