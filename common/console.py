"""A command whose standard output or error cannot be written: one line and exit status 1; `| head` ends it quietly."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO


class Unwritable(OSError):
    """Raised in place of an OSError by the standard streams, so that it is not taken for one of a connection."""


class _Stream:
    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fail(error)

    def flush(self) -> None:
        """Raises also what was raised before: argparse, for one, ignores it."""
        try:
            if self.error:
                raise self.error
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> NoReturn:
        self.error = error
        raise Unwritable(f"{self._name} cannot be written: {error.strerror}") from error


@contextmanager
def standard_streams() -> Iterator[None]:
    """Run a command in this block. Raises SystemExit where its output could not be written as a whole."""
    # A descriptor that was closed (`>&-`) would be given to the next connection.
    out = _Stream(sys.stdout or _opened(1, os.O_RDONLY), "standard output")
    err = _Stream(sys.stderr or _opened(2, os.O_WRONLY), "standard error")
    sys.stdout, sys.stderr = out, err
    try:
        try:
            yield
        finally:
            # What is buffered fails here, and not where Python could only complain about it.
            out.flush()
    except Unwritable as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (out, err):
            if stream.error:
                os.dup2(nowhere, stream.fileno())
                stream.error = None
        if isinstance(error.__cause__, BrokenPipeError):
            # The reader has read enough: the status is that of a program that SIGPIPE ends.
            sys.exit(128 + signal.SIGPIPE)
        sys.exit(f"CommandError: {error}")


def _opened(descriptor: int, mode: int) -> TextIO:
    """A stream in the place of one that was closed: for reading only, so that what is written to it fails."""
    os.dup2(os.open(os.devnull, mode), descriptor)
    return open(descriptor, "w")
