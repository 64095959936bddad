"""Which circuits are open in any process: each process says so in Redis when one of its circuits opens or closes.

    circuits.share()                 # in each process that calls through circuits, once
    circuits.open_in_processes()     # anywhere: {"payment-gateway": 3}

For people only. No process decides by it: each breaker goes on judging by its own calls (see `breaker.py`), and when Redis
cannot be asked, nothing is shared and no call fails. What a process said is forgotten when it has not said it again for
twice the circuit's timeout and a minute: it was killed, or has made no call since.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter

from . import breaker
from .connection import UNAVAILABLE, get_redis, run_script

logger = logging.getLogger(__name__)

#: One sorted set: "circuit\\nprocess" by the time at which it is forgotten, on the clock of Redis.
KEY = "circuits:open"
GRACE_S = 60.0

_SAY = """
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', time[1])
if tonumber(ARGV[2]) > 0 then
    redis.call('ZADD', KEYS[1], time[1] + ARGV[2], ARGV[1])
else
    redis.call('ZREM', KEYS[1], ARGV[1])
end
"""
_ASK = "return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. redis.call('TIME')[1], '+inf')"


def share() -> None:
    """From now on this process says which of its circuits are open. Calling it again does nothing."""
    if _say not in breaker.on_change:
        breaker.on_change.append(_say)


def open_in_processes() -> dict[str, int]:
    """Circuit -> in how many processes it is open, 0 for those of this process that are closed everywhere.

    Raises one of `UNAVAILABLE` when Redis cannot be asked.
    """
    members = run_script(get_redis(), _ASK, [KEY])
    known = dict.fromkeys((state.name for state in breaker.states()), 0)
    return known | Counter(member.partition("\n")[0] for member in members)


def stats() -> dict[str, dict[str, int]]:
    """`open_in_processes` for a monitoring that does not know this folder: {"open": {circuit: processes}}."""
    return {"open": open_in_processes()}


def _say(circuit: breaker.Breaker) -> None:
    keep_s = 0.0 if circuit.state == breaker.STATE_CLOSED else 2 * circuit.recovery_timeout + GRACE_S
    try:
        run_script(
            get_redis(), _SAY, [KEY], f"{circuit.name}\n{socket.gethostname()}:{os.getpid()}", round(keep_s)
        )
    except UNAVAILABLE as error:
        logger.warning("the state of the circuit %s is not shared: %s", circuit.name, error)
