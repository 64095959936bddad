"""Which letters are the same problem: the exception's type and the first own function, never a line number.

A deploy moves lines and a message carries ids, so that neither may split a group; without an own frame in the
traceback the message, with its ids taken out, is all there is (the rules are Sentry's and ServicePulse's).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line \d+, in (?P<function>.+)$', re.MULTILINE)
#: Frames of installed packages, the standard library and generated code say where it passed, not whose it is.
_FOREIGN = re.compile(r"site-packages|dist-packages|/lib/python\d|^<")
_VARIABLE = (
    (re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"), "<uuid>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "<address>"),
    (re.compile(r"\b[0-9a-fA-F]{16,}\b"), "<hex>"),
    (re.compile(r"'[^']*'|\"[^\"]*\""), "<text>"),
    (re.compile(r"\d+(?:\.\d+)?"), "<n>"),
)


def place(traceback: str) -> str:
    """The innermost own function of a formatted traceback, as `folder.module.function`; '' without one."""
    own = [frame for frame in _FRAME.finditer(traceback) if not _FOREIGN.search(frame["file"])]
    if not own:
        return ""
    path = PurePosixPath(own[-1]["file"])
    return ".".join(part for part in (path.parent.name, path.stem, own[-1]["function"].strip()) if part)[:255]


def normalised(message: str) -> str:
    """The first line of an error message with everything taken out that differs from case to case."""
    line = message.strip().splitlines()[0] if message.strip() else ""
    for pattern, name in _VARIABLE:
        line = pattern.sub(name, line)
    return line[:500]


def fingerprint(*, exception: str, error: str, where: str, task: str) -> str:
    """The key of a letter's group. Letters of one task and one problem share it, those of two never do."""
    parts = (task, exception, where or normalised(error))
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()
