"""Circuit breaker: after so many failures in a row, stop calling for a while; then let one call try.

Stands alone: needs the package `circuitbreaker`, neither Django nor Redis, and no setting. Source: Nygard, "Release It!".

A layer over the library `circuitbreaker` (its exception and its registry, so that readers of its
documentation find what they know) that adds what threads need: counting under a lock, exactly one probe
while half-open, and results of calls that began before the circuit opened do not close it.

    @circuit(5, 30, expected_exception=requests.RequestException)
    def call_external_api(data): ...

The state is per process, on purpose. Every worker process learns by itself within five calls that the far
side is down, at the price of five calls a process; a shared state would need a store that may itself be
down, and one process with a broken route would cut off all others. `states()` therefore lists what *this*
process knows; `circuits.py` shows people those of all processes.
"""

import inspect
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from circuitbreaker import (
    STATE_CLOSED,
    STATE_HALF_OPEN,
    STATE_OPEN,
    CircuitBreaker,
    CircuitBreakerError,
    CircuitBreakerMonitor,
)

logger = logging.getLogger(__name__)

Expected = type[Exception] | Iterable[type[Exception]] | Callable[[type[Exception], Exception], bool]

__all__ = ["Breaker", "BreakerState", "CircuitBreakerError", "circuit", "reset_all", "retry_after", "states"]


#: Called with a breaker that has opened, also once more after a probe that failed, or closed.
on_change: list[Callable[["Breaker"], None]] = []


@dataclass(frozen=True)
class BreakerState:
    """What this process knows of one circuit; `state` is closed, open or half_open."""

    name: str
    state: str
    failure_count: int
    retry_after: float


class Breaker(CircuitBreaker):
    """A thread-safe circuit breaker for plain functions.

    Closed: calls go through, and `failure_threshold` expected exceptions in a row open it. Open: calls
    raise CircuitBreakerError (or return the fallback's result) at once for `recovery_timeout` seconds.
    Half-open: one call goes through as a probe; its success closes the circuit, its failure opens it for
    another period. Other exceptions are answers of a working service and count as success (a declined card
    is no outage); so what interrupts a call from outside, such as a task's time limit, is to be one of the expected.
    """

    def __init__(
        self,
        failure_threshold: int = 5,
        recovery_timeout: float = 30,
        expected_exception: Expected = Exception,
        name: str | None = None,
        fallback_function: Callable[..., Any] | None = None,
    ) -> None:
        # The library reads 0 as "use the default", which is the opposite of what 0 looks like.
        if failure_threshold < 1 or recovery_timeout <= 0:
            raise ValueError(f"threshold {failure_threshold} must be >= 1, timeout {recovery_timeout} > 0")
        super().__init__(failure_threshold, recovery_timeout, expected_exception, name, fallback_function)
        self._lock = threading.RLock()
        self._period = 0  # counts changes of state: a result of an earlier period says nothing about this one
        self._probe_at: float | None = None
        if name is not None:
            CircuitBreakerMonitor.register(self)  # a breaker that is used by call() never gets to decorate()

    def __enter__(self) -> None:
        # The library's `with breaker:` counts, but neither refuses a call nor knows which period it belongs
        # to.
        raise TypeError("use the decorator or call(): `with` would run the body although the circuit is open")

    def decorate(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(
                f"{function.__qualname__}: only plain functions; a coroutine's or generator's calls overlap"
            )
        if self.name is None:
            # Two modules may both have a `post`; the library's registry would keep one of them.
            self._name = f"{function.__module__}.{function.__qualname__}"
        return super().decorate(function)

    @property
    def state(self) -> str:
        """closed, open or half_open; half-open with its probe on the way is open for everybody else."""
        with self._lock:
            if self._state != STATE_OPEN or monotonic() < self._opened + self._recovery_timeout:
                return self._state
            return STATE_OPEN if self._probing() else STATE_HALF_OPEN

    @property
    def recovery_timeout(self) -> float:
        """For how long no call is made once the circuit has opened, in seconds."""
        return float(self._recovery_timeout)

    @property
    def retry_after(self) -> float:
        """Seconds until a call may go through again; 0 when closed."""
        with self._lock:
            return (
                0.0
                if self._state == STATE_CLOSED
                else max(0.0, self._opened + self._recovery_timeout - monotonic())
            )

    def call(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `func` through the circuit; raises CircuitBreakerError without calling it while open."""
        period = self._admit()
        if period is None:
            if self.fallback_function:
                return self.fallback_function(*args, **kwargs)
            raise CircuitBreakerError(self)
        try:
            result = func(*args, **kwargs)
        except Exception as error:
            self._settle(period, error)
            raise
        except BaseException:
            # The process is being stopped: that says nothing about the far side. Only give the probe back.
            self._release_probe(period)
            raise
        self._settle(period, None)
        return result

    def reset(self) -> None:
        """Close the circuit and forget all failures."""
        with self._lock:
            self._period += 1
            self._probe_at = None
            super().reset()

    def _admit(self) -> int | None:
        """The period that a call now belongs to, or None when it must not be made."""
        with self._lock:
            state = self.state
            if state == STATE_OPEN:
                return None
            if state == STATE_HALF_OPEN:
                self._probe_at = monotonic()
                self._period += 1
            return self._period

    def _probing(self) -> bool:
        # A probe that hangs must not keep the circuit open for ever: after a period another one may try.
        return self._probe_at is not None and monotonic() < self._probe_at + self._recovery_timeout

    def _release_probe(self, period: int) -> None:
        with self._lock:
            if period == self._period:
                self._probe_at = None

    def _settle(self, period: int, error: Exception | None) -> None:
        # Not under the lock: a listener may take its time, and other threads' calls would wait for it.
        if self._judge(period, error):
            for listener in on_change:
                try:
                    listener(self)
                except Exception:
                    # A listener must not fail the call, nor replace its error.
                    logger.exception("a listener of the circuit %s failed", self.name)

    def _judge(self, period: int, error: Exception | None) -> bool:
        """Count the outcome of a call; returns whether the circuit has opened or closed with it."""
        with self._lock:
            if period != self._period:
                return False
            probe, self._probe_at = self._probe_at is not None, None
            if error is None or not self.is_failure(type(error), error):
                if probe:
                    logger.warning("circuit %s closed: the probe succeeded", self.name)
                    self._period += 1
                super().reset()
                return probe
            self._last_failure = error
            self._failure_count += 1
            if probe or self._failure_count >= self._failure_threshold:
                self._state = STATE_OPEN
                self._opened = monotonic()
                self._period += 1
                logger.warning(
                    "circuit %s open for %g s after %d failures, last: %r",
                    self.name, self._recovery_timeout, self._failure_count, error,
                )  # fmt: skip
                return True
            return False


def circuit(
    failure_threshold: int = 5,
    recovery_timeout: float = 30,
    expected_exception: Expected = Exception,
    name: str | None = None,
    fallback_function: Callable[..., Any] | None = None,
) -> Breaker:
    """A decorator: open after `failure_threshold` failures in a row (5), for `recovery_timeout` seconds (30).

    `expected_exception` says what is a failure of the far side: a type, several, or a predicate (type,
    error) -> bool (default: every Exception). `name` identifies the circuit in `states()` (default: the function's
    dotted name). `fallback_function` is called with the call's arguments instead of raising while the circuit is open.

    A call raises CircuitBreakerError while the circuit is open; `retry_after(error)` says for how long. Raises ValueError
    for a threshold below 1 or a timeout of 0.
    """
    return Breaker(failure_threshold, recovery_timeout, expected_exception, name, fallback_function)


def retry_after(error: CircuitBreakerError, default: float = 30.0) -> float:
    """Seconds after which what was refused with `error` is worth another try; never 0, which would spin."""
    breaker = getattr(error, "_circuit_breaker", None)
    return max(1.0, breaker.retry_after) if isinstance(breaker, Breaker) else default


def states() -> list[BreakerState]:
    """Every circuit of this process, by name."""
    breakers = sorted(CircuitBreakerMonitor.get_circuits(), key=lambda breaker: breaker.name)
    return [
        BreakerState(breaker.name, breaker.state, breaker.failure_count, breaker.retry_after)
        for breaker in breakers
        if isinstance(breaker, Breaker)
    ]


def reset_all() -> None:
    """Close every circuit of this process, so that one test's failures do not open another's."""
    for breaker in CircuitBreakerMonitor.get_circuits():
        breaker.reset()
