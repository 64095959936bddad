"""Every kind of fault; importing this registers them all."""

from lab.chaos.faults import dials, messages, network, processes, servers
from lab.chaos.faults.kinds import KINDS, Hit, Kind

SKIPPED = processes.SKIPPED

__all__ = ["KINDS", "SKIPPED", "Hit", "Kind", "dials", "messages", "network", "processes", "servers"]
