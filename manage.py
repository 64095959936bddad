#!/usr/bin/env python
"""Django's command-line utility for Holdfast."""

import os
import select
import signal
import sys
from typing import TextIO


def main() -> None:
    if sys.argv[1:] == ["stack"]:
        # It provides the settings that every other command needs, so it cannot need them itself.
        from lab.serve import main as serve

        sys.exit(serve())
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line
    from django.db import DatabaseError, InterfaceError

    try:
        execute_from_command_line(sys.argv)
        # What is buffered meets a closed pipe here, and not where Python could only complain about it.
        sys.stdout.flush()
    except BrokenPipeError:
        if not any(_is_unread(stream) for stream in (sys.stdout, sys.stderr)):
            # A connection of the command's own broke, which is a failure like any other.
            raise
        # `| head` has read enough. The rest goes nowhere, and the status is that of a program that SIGPIPE ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            if _is_unread(stream):
                os.dup2(nowhere, stream.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (DatabaseError, InterfaceError) as error:
        # Here, once for every command: the commands of one pattern cannot import what those of another do.
        from outbox.database import may_pass
        from outbox.relay.loop import describe

        if "--traceback" in sys.argv or not may_pass(error):
            raise
        sys.exit(f"CommandError: {describe(error)}: look at the server of DATABASE_URL")


def _is_unread(stream: TextIO) -> bool:
    """Whether the reader of this pipe is gone."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


if __name__ == "__main__":
    main()
