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

    from common.console import standard_streams

    try:
        with standard_streams():
            execute_from_command_line(sys.argv)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (DatabaseError, InterfaceError) as error:
        # Here, once for every command: the commands of one pattern cannot import what those of another do.
        from outbox.database import may_pass
        from outbox.relay.loop import describe

        if "--traceback" in sys.argv or not may_pass(error):
            raise
        sys.exit(f"CommandError: {describe(error)}: look at the server of DATABASE_URL")


if __name__ == "__main__":
    main()
