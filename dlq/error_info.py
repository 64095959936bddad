"""What went wrong, as a dead letter keeps it: type, text and traceback of bounded length, and the problem that it belongs to.

Dead letters of one problem share a fingerprint: the exception's type and the innermost function of the application,
never a line number. A deploy moves lines and a message carries ids, so that neither may split a group; without a frame
of the application in the traceback, the error's text with its ids taken out is used (the rules are Sentry's and
ServicePulse's).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import Any

from dlq.message import text

#: A traceback past this is a recursion; its beginning and end say all.
MAX_TRACEBACK = 50_000
#: An error past this quotes what it was given; its beginning says all. A note is a person's, and shorter.
MAX_ERROR = 8_000
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line \d+, in (?P<function>.+)$', re.MULTILINE)
#: Frames of installed packages, the standard library and generated code say where the error passed, not whose code
#: raised it.
_FOREIGN = re.compile(r"site-packages|dist-packages|/lib/python\d|^<")
_VARIABLE = (
    (re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"), "<uuid>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "<address>"),
    (re.compile(r"\b[0-9a-fA-F]{16,}\b"), "<hex>"),
    (re.compile(r"'[^']*'|\"[^\"]*\""), "<text>"),
    (re.compile(r"\d+(?:\.\d+)?"), "<n>"),
)


def place(traceback: str) -> str:
    """The innermost function of the application in a formatted traceback, as `folder.module.function`; '' without one."""
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
    """The key of a dead letter's group. Dead letters of one task and one problem share it, those of different ones
    never do.
    """
    parts = (task, exception, where or normalised(error))
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()


def described(*, exception: BaseException | None, error: str, traceback: str, task: str) -> dict[str, str]:
    """The fields that say what went wrong, and which group that is."""
    name = type_name(exception)
    error = shortened(error or exception or "")
    traceback = text(traceback)
    if len(traceback) > MAX_TRACEBACK:
        half = MAX_TRACEBACK // 2
        traceback = f"{traceback[:half]}\n… (cut: {len(traceback)} characters)\n{traceback[-half:]}"
    where = place(traceback)
    return {
        "exception": name,
        "error": error,
        "traceback": traceback,
        "place": where,
        "fingerprint": fingerprint(exception=name, error=error, where=where, task=text(task)),
    }


def shortened(error: Any) -> str:
    """An error or a note as text of bounded length, for it is shown, masked and searched as a whole."""
    error = text(error)
    return error if len(error) <= MAX_ERROR else f"{error[:MAX_ERROR]}… (cut: {len(error)} characters)"


def type_name(exception: BaseException | None) -> str:
    """The exception's type with its module, builtins without; as it was in the child, pickled or not."""
    if exception is None:
        return ""
    wrapped = getattr(exception, "exc_cls_name", None)  # celery's UnpickleableExceptionWrapper
    if wrapped:
        return text(f"{getattr(exception, 'exc_module', '')}.{wrapped}".lstrip("."))[:255]
    kind = type(exception)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return text(f"{module}{kind.__qualname__}")[:255]
