"""Every kind of fault; importing this registers them all."""

from lab.chaos.faults import dials, messages, network, processes, servers, versions, writes
from lab.chaos.faults.kinds import KINDS, Hit, Kind

#: Kinds that this machine cannot do, with the reason.
SKIPPED = processes.SKIPPED | ({"kill -9 PgBouncer": servers.NO_POOLER} if servers.NO_POOLER else {})

__all__ = [
    "KINDS",
    "SKIPPED",
    "Hit",
    "Kind",
    "dials",
    "messages",
    "network",
    "processes",
    "servers",
    "versions",
    "writes",
]
