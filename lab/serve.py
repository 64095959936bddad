"""`manage.py stack`: only the embedded servers, until Ctrl-C."""

from __future__ import annotations

import sys
import time

from lab.signals import Stopped, raise_on_stop
from lab.stack import Stack, StackError
from lab.stack.stack import STACK_ENV


def main() -> int:
    """Run the servers until told to stop. Returns 0 after a stop, 1 with one line when they cannot run."""
    raise_on_stop()
    stack = Stack(title="manage.py stack")
    try:
        stack.start()
        print(f"ready: the settings are in {STACK_ENV}, every manage.py command here reads them", flush=True)
        while True:
            time.sleep(0.5)
            stack.watch()
    except Stopped:
        return 0
    except StackError as problem:
        print(f"stack: {problem}", file=sys.stderr)
        return 1
    finally:
        stack.stop()
