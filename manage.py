#!/usr/bin/env python
"""Django's command-line utility for Holdfast."""

import os
import sys


def main() -> None:
    if sys.argv[1:] == ["stack"]:
        # It provides the settings that every other command needs, so it cannot need them itself.
        from lab.serve import main as serve

        sys.exit(serve())
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
