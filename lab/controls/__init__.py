"""The controls at the end of the control room: break something, and watch the system recover.

They are there in a web process of `make up` alone: elsewhere, with or without this folder, the page has none and their
address is a 404.
"""

from __future__ import annotations

import os

from lab.stack.processes import OWNER


def stack() -> str | None:
    """The directory of the stack that this process belongs to, None outside of one."""
    return os.environ.get(OWNER)
