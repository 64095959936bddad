#!/usr/bin/env python
"""Django's command-line utility for Holdfast."""

import os
import signal
import sys


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
        # `| head` has read enough. The rest goes nowhere, and the status is that of a program that SIGPIPE ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (DatabaseError, InterfaceError) as error:
        # Here, once for every command: the commands of one pattern cannot import what those of another do.
        from outbox.database import may_pass
        from outbox.relay import describe

        if "--traceback" in sys.argv or not may_pass(error):
            raise
        sys.exit(f"CommandError: {describe(error)}: look at the server of DATABASE_URL")


if __name__ == "__main__":
    main()
