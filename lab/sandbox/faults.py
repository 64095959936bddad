"""The fault dials: how often, and in which way, each service of the sandbox misbehaves.

Every rate is a share of requests between 0 and 1; times are milliseconds, `retry_after` is seconds. What
happens *before* the service acts: `hang_rate`, `rate_limit_rate`, `redirect_rate`, `error_rate`, and
`cached_error_rate` (the gateway's execution begins and fails, so the 500 is saved under the idempotency key).
What happens *after* it acted: `drop_reply_rate`, `wrong_json_rate`, `slow_drip_rate`. A caller that cannot
tell the two apart is what the dials are for.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

_COMMON = {
    "error_rate": 0.0,  # refused before acting, nothing saved: a retry may succeed
    "latency_ms": 0.0,  # time that the work takes
    "hang_rate": 0.0,  # no answer at all, before acting ...
    "hang_ms": 30_000.0,  # ... until the connection is closed after this long
    "rate_limit_rate": 0.0,  # 429 (mail: 450) before acting ...
    "drop_reply_rate": 0.0,  # acts, then closes the connection without an answer
}
_HTTP = _COMMON | {
    "retry_after": 1.0,  # ... with this Retry-After
    "redirect_rate": 0.0,  # 302 to a page that answers 200, before acting: to follow it is to be fooled
    "wrong_json_rate": 0.0,  # acts, then answers 200 with a body that is not JSON
    "slow_drip_rate": 0.0,  # acts, then answers byte by byte, and each byte resets a read timeout ...
    "slow_drip_ms": 30_000.0,  # ... over this long
}
DIALS: dict[str, dict[str, float]] = {
    "gateway": _HTTP | {"cached_error_rate": 0.0, "duplicate_event_rate": 0.0},
    "warehouse": _HTTP,
    "crm": _HTTP,
    "merchants": _HTTP,
    "mail": _COMMON,
}
# The order in which a request meets them on its way in and out.
_PRECEDENCE = (
    "hang_rate",
    "rate_limit_rate",
    "redirect_rate",
    "error_rate",
    "cached_error_rate",
    "drop_reply_rate",
    "wrong_json_rate",
    "slow_drip_rate",
)


class UnknownDial(ValueError):
    """A service, dial or value that does not exist; the message names it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will go wrong with one request, drawn before it is looked at."""

    latency_s: float = 0.0
    hang_s: float = 0.0
    rate_limit: bool = False
    retry_after: float = 0.0
    redirect: bool = False
    error: bool = False
    cached_error: bool = False
    drop_reply: bool = False
    wrong_json: bool = False
    slow_drip_s: float = 0.0


NO_FAULTS = Plan()


class Faults:
    """The dials as they are set, and the dice. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.set({})

    def set(self, wanted: dict[str, Any]) -> None:
        """Turn the dials: `{"gateway": {"error_rate": 0.3}, "*": {"latency_ms": 20}, "seed": 7}`.

        Replaces the whole setting, so what is not named goes back to its default and `{}` is a calm day. "*"
        means every service that has the dial; a service's own entry wins over it. With a seed, the nth
        request to a service meets the same fault in every run. Raises `UnknownDial` and changes nothing when
        anything in it is unknown.
        """
        dials = {service: dict(defaults) for service, defaults in DIALS.items()}
        wanted = dict(wanted)
        seed = wanted.pop("seed", None)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise UnknownDial(f"seed: must be an integer, not {seed!r}")
        for service in sorted(wanted):  # "*" sorts first
            if service != "*" and service not in DIALS:
                raise UnknownDial(f"{service}: unknown service; known are {', '.join(DIALS)} and *")
            if not isinstance(wanted[service], dict):
                raise UnknownDial(f"{service}: must be an object of dials, not {wanted[service]!r}")
            for dial, value in wanted[service].items():
                having = [name for name in DIALS if dial in DIALS[name] and service in ("*", name)]
                if not having:
                    known = DIALS.get(service) or {dial for each in DIALS.values() for dial in each}
                    raise UnknownDial(f"{service}.{dial}: unknown dial; known are {', '.join(sorted(known))}")
                for name in having:
                    dials[name][dial] = _checked(f"{service}.{dial}", dial, value)
        with self._lock:
            self._dials = dials
            self._seed = seed
            # One stream of dice per service: traffic to one service does not shift what another one meets.
            self._dice = {
                stream: random.Random(None if seed is None else f"{seed}/{stream}")
                for stream in (*DIALS, "events")
            }
            self._bitten: Counter[tuple[str, str]] = Counter()

    def shown(self) -> dict[str, Any]:
        """The whole setting, in the form that `set` takes."""
        with self._lock:
            return {service: dict(dials) for service, dials in self._dials.items()} | {"seed": self._seed}

    def bitten(self) -> dict[str, dict[str, int]]:
        """How often each dial bit since the dials were last turned: `{"gateway": {"error_rate": 12}}`."""
        with self._lock:
            counts = dict(self._bitten)
        return {
            service: {dial: count for (name, dial), count in sorted(counts.items()) if name == service}
            for service in DIALS
        }

    def plan(self, service: str) -> Plan:
        """Draw what will go wrong with the next request to `service`."""
        with self._lock:
            dials = self._dials[service]
            # Every die is thrown for every request, whatever was decided before, so that a seed's sequence
            # does not depend on which dials are up.
            dice = self._dice[service]
            struck = [dial for dial in _PRECEDENCE if dice.random() < dials.get(dial, 0.0)]
            bites = next(iter(struck), None)  # one fault a request: the earliest on its way
            if bites:
                self._bitten[service, bites] += 1
            return Plan(
                latency_s=dials["latency_ms"] / 1000,
                hang_s=dials["hang_ms"] / 1000 if bites == "hang_rate" else 0.0,
                rate_limit=bites == "rate_limit_rate",
                retry_after=dials.get("retry_after", 0.0),
                redirect=bites == "redirect_rate",
                error=bites == "error_rate",
                cached_error=bites == "cached_error_rate",
                drop_reply=bites == "drop_reply_rate",
                wrong_json=bites == "wrong_json_rate",
                slow_drip_s=dials["slow_drip_ms"] / 1000 if bites == "slow_drip_rate" else 0.0,
            )

    def duplicates_event(self) -> bool:
        """Whether the gateway's next event is to be posted twice."""
        with self._lock:
            bites = self._dice["events"].random() < self._dials["gateway"]["duplicate_event_rate"]
            self._bitten["gateway", "duplicate_event_rate"] += bites
            return bites


def _checked(name: str, dial: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnknownDial(f"{name}: must be a number, not {value!r}")
    if dial.endswith("_rate") and not 0 <= value <= 1:
        raise UnknownDial(f"{name}: is a rate, between 0 and 1, not {value!r}")
    if not 0 <= value < 86_400_000:
        raise UnknownDial(f"{name}: must be between 0 and a day, not {value!r}")
    return float(value)
