"""The embedded stack: a real PostgreSQL and a real Redis, private to one checkout (see ``stack.Stack``)."""

from lab.stack.errors import StackError
from lab.stack.stack import Stack

__all__ = ["Stack", "StackError"]
