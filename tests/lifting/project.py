"""A scratch project that follows docs/lifting.md to the letter, on the run's own PostgreSQL and Redis."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg2
import pytest
import redis

from lab.stack.stack import ROOT
from tests.lifting import interpreters
from tests.lifting.page import Step, sections
from tests.support.processes import Process, await_, running

START = "The project that the steps start from"
DATABASE = "myproject"
HERE = Path(__file__).resolve().parent
#: The app `shop` that the tests give a project: a model, and tasks in Celery's own words.
SHOP = {str(path.relative_to(HERE)): path.read_text() for path in sorted((HERE / "shop").rglob("*.py"))}

#: What a process says when it works, by a word of its command.
READY = {" worker": " ready.", "outbox_relay": "relay: running", " beat": "beat: Starting"}


class SnippetError(Exception):
    """A snippet raised; the message is its exception, as `ValueError: text`."""


@dataclass(frozen=True)
class Combination:
    """Interpreter, Django ("" is what the page's own line brings) and PostgreSQL driver of a scratch project."""

    driver: str
    python: str = "{}.{}".format(*sys.version_info)
    django: str = ""

    def __str__(self) -> str:
        return f"python{self.python}-django{self.django or '-newest'}-{self.driver}"

    def adapted(self, line: str) -> str:
        """A line of `pip install` with this combination's driver and Django."""
        packages = {"psycopg2": "psycopg2-binary", "psycopg3": '"psycopg[binary]"'}
        line = line.replace(packages["psycopg3"], packages[self.driver])
        return line.replace('"Django>=5.2"', f'"Django=={self.django}.*"') if self.django else line


PSYCOPG3 = Combination("psycopg3")
PSYCOPG2 = Combination("psycopg2", django="5.2")
#: Each driver on the interpreter that runs, and each newer Python with a newer Django where it is at hand.
COMBINATIONS = (
    PSYCOPG3,
    PSYCOPG2,
    Combination("psycopg3", python="3.12", django="6.0"),
    Combination("psycopg3", python="3.13", django="6.1"),
)


class Project:
    """One scratch project; `made` makes it."""

    def __init__(self, directory: Path, environment: Path) -> None:
        self.directory = directory
        self.environment = environment
        self._processes: list[str] = []
        self._console: subprocess.Popen[str] | None = None
        server = urlsplit(os.environ["DATABASE_URL"])
        broker = urlsplit(os.environ["REDIS_URL"])
        self.env = {
            **interpreters.clean_environment(),
            "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
            "VIRTUAL_ENV": str(environment),
            "HOLDFAST": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            # One place less to clean: what is imported here stays out of the copied folders.
            "PYTHONDONTWRITEBYTECODE": "1",
            "PGHOST": server.hostname or "",
            "PGPORT": str(server.port or 5432),
            "PGUSER": unquote(server.username or ""),
            "PGPASSWORD": unquote(server.password or ""),
            "PGDATABASE": DATABASE,
            "REDIS_URL": broker._replace(path="/0").geturl(),
        }

    def follow(self, section: str) -> None:
        """Do what this section of the page says; processes are started by `processes`."""
        for step in sections()[section]:
            try:
                self._follow(step)
            except Exception as error:
                error.add_note(f"docs/lifting.md, line {step.line}, of {section!r}")
                raise

    def _follow(self, step: Step) -> None:
        if step.kind == "file":
            self.write(step.path, step.text)
        elif step.kind == "add":
            self.add(step.path, step.text)
        elif step.kind == "shell":
            self.python(step.text)
        elif step.kind == "processes":
            self._processes += step.commands()
        else:
            for command in step.commands():
                # Done already, for all projects with the same lines.
                if not command.startswith("pip install"):
                    self.run(command)

    def write(self, path: str, text: str) -> None:
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def add(self, path: str, text: str) -> None:
        """Append to a file that is there."""
        with (self.directory / path).open("a") as file:
            file.write("\n" + textwrap.dedent(text))

    def run(self, command: str, *, timeout_s: float = 60) -> str:
        """Run a line of shell in the project's directory; returns its output. Raises AssertionError when it fails."""
        done = subprocess.run(
            ["sh", "-euc", command],
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"`{command}` ended with {done.returncode}:\n{done.stdout[-4000:]}"
        return done.stdout

    def python(self, code: str) -> Any:
        """Run Python as `manage.py shell` does; returns what it leaves in `result`. Raises SnippetError."""
        console = self._console
        if console is None or console.poll() is not None:
            console = self._console = subprocess.Popen(
                [self.environment / "bin" / "python", HERE / "console.py"],
                cwd=self.directory,
                env={**self.env, "DJANGO_SETTINGS_MODULE": "myproject.settings"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert console.stdin
        assert console.stdout
        with suppress(BrokenPipeError):
            console.stdin.write(json.dumps(textwrap.dedent(code)) + "\n")
            console.stdin.flush()
        line = console.stdout.readline()
        assert line, f"the project's Python ended with {console.wait()}"
        answer = json.loads(line)
        if answer["error"]:
            error = SnippetError(answer["error"])
            error.add_note(answer["traceback"])
            raise error
        return answer["result"]

    @contextmanager
    def processes(self, *words: str) -> Iterator[list[Process]]:
        """The processes that the page names run, or those of them whose command has one of these words."""
        chosen = [line for line in self._processes if not words or any(word in line for word in words)]
        assert chosen, f"the page starts no {words}: {self._processes}"
        with ExitStack() as stack:
            yield [stack.enter_context(self.process(command)) for command in chosen]

    def process(self, command: str) -> Any:
        ready = next(text for word, text in READY.items() if word in command)
        return running(["sh", "-c", f"exec {command}"], cwd=self.directory, env=self.env, ready=ready)

    def times(self, name: str) -> int:
        """How many effects of this name there are."""
        return int(self.python(f"from shop.tasks import times; result = times({name!r})"))

    def await_effect(self, name: str, timeout_s: float = 30.0) -> None:
        await_(lambda: self.times(name), f"the effect {name!r}", timeout_s)

    def flushall(self) -> None:
        with redis.Redis.from_url(self.env["REDIS_URL"]) as client:
            client.flushall()

    def stop(self) -> None:
        if self._console is not None:
            assert self._console.stdin
            assert self._console.stdout
            self._console.stdin.close()
            self._console.wait(10)
            self._console.stdout.close()


@contextmanager
def made(
    directory: Path,
    *titles: str,
    combination: Combination = PSYCOPG3,
    files: Mapping[str, str] = SHOP,
    settings: str = "",
) -> Iterator[Project]:
    """A project by the page's first steps and by those of these sections, with these files and settings in between."""
    python = interpreters.find(combination.python)
    if python is None:
        pytest.skip(f"no python{combination.python} here")
    environment = interpreters.or_skip(python, requirements([START, *titles], combination))
    directory.mkdir(parents=True, exist_ok=True)
    project = Project(directory, environment)
    _create_database()
    project.flushall()
    try:
        project.follow(START)
        for path, text in files.items():
            project.write(path, text)
        if settings:
            project.add("myproject/settings.py", settings)
        for title in titles:
            project.follow(title)
        yield project
    finally:
        project.stop()
        shutil.rmtree(directory, ignore_errors=True)


def requirements(titles: Sequence[str], combination: Combination) -> list[str]:
    """The lines of `pip install` of these sections."""
    steps = [step for title in titles for step in sections()[title] if step.kind == "commands"]
    lines = [line for step in steps for line in step.commands() if line.startswith("pip install")]
    return list(dict.fromkeys(combination.adapted(line) for line in lines))


def _create_database() -> None:
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        cursor.execute(f"CREATE DATABASE {DATABASE}")
    connection.close()
