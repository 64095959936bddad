"""CPU time: what a figure can be computed from while the machine does other things too."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from django.db import connection


def with_session_us() -> float:
    """Microseconds that this process and its database session have computed so far."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (session,) = cursor.fetchone()
    return time.process_time() * 1e6 + int(Path(f"/proc/{session}/schedstat").read_text().split()[0]) / 1e3


def of_process_s(pid: int) -> float:
    """Seconds that a process has computed so far; 0 if it is gone."""
    with suppress(OSError):
        # Behind the name in brackets, which may hold anything: user and system time are the fields 14 and 15.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
