"""The settings that BENCH_SETTINGS names, in a process that writes each statement and commit to the file BENCH_COUNTS.

A line is what asked (a task, a request, or else the process's BENCH_ROLE), how many statements, how many commits. All
processes append to the one file: a short write to it is whole.
"""

import importlib
import os
import re
import threading
from typing import Any

from bench_statements import install  # type: ignore[import-not-found]  # beside this file, on the PYTHONPATH
from celery._state import get_current_task
from django.core.signals import request_finished, request_started

vars().update(vars(importlib.import_module(os.environ["BENCH_SETTINGS"])))

_role = os.environ.get("BENCH_ROLE", "")
_request = threading.local()


def _begin(environ: dict[str, Any] | None = None, **_: Any) -> None:
    if environ is not None:
        _request.name = f"{environ['REQUEST_METHOD']} {re.sub(r'[0-9]+', '<id>', environ['PATH_INFO'])}"


def _end(**_: Any) -> None:
    _request.name = _role


if _counts := os.environ.get("BENCH_COUNTS"):
    _file = os.open(_counts, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _note(statements: int, commits: int) -> None:
        task = get_current_task()
        name = task.name if task is not None else getattr(_request, "name", _role)
        os.write(_file, f"{name}\t{statements}\t{commits}\n".encode())

    request_started.connect(_begin)
    request_finished.connect(_end)
    install(_note)
