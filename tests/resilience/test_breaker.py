import threading
from collections.abc import Iterator

import pytest
import requests
from circuitbreaker import CircuitBreakerError

from resilience import breaker
from resilience.breaker import Breaker, circuit


class Declined(Exception):
    """The far side answered, and the answer is no."""


@pytest.fixture
def clock(mocker):
    """Time that the test turns: the breaker reads `monotonic`, ours and the library's."""

    class Clock:
        now = 1000.0

        def forward(self, seconds: float) -> None:
            self.now += seconds

    clock = Clock()
    mocker.patch("resilience.breaker.monotonic", side_effect=lambda: clock.now)
    mocker.patch("circuitbreaker.monotonic", side_effect=lambda: clock.now)
    return clock


@pytest.fixture
def failing(name: str):
    """A function behind a circuit of its own (5 failures, 30 s) that does what `outcome` says."""

    class Service:
        calls = 0
        outcome: BaseException | str = ConnectionError("API down")

    service = Service()

    @circuit(5, 30, expected_exception=ConnectionError, name=name)
    def call() -> str:
        service.calls += 1
        if isinstance(service.outcome, BaseException):
            raise service.outcome
        return service.outcome

    service.call = call
    service.breaker = next(b for b in breaker.CircuitBreakerMonitor.get_circuits() if b.name == name)
    return service


@pytest.fixture(autouse=True)
def closed_again() -> Iterator[None]:
    yield
    breaker.reset_all()


def open_it(failing) -> None:
    for _ in range(5):
        with pytest.raises(ConnectionError):
            failing.call()


def test_after_five_failures_the_sixth_call_is_refused_without_being_made(mocker) -> None:
    post = mocker.patch("requests.post", side_effect=ConnectionError("API down"))

    @circuit(failure_threshold=5, recovery_timeout=30)
    def call_external_api(data: dict) -> object:
        return requests.post("https://api.example.com/process", json=data, timeout=3)

    for _ in range(5):
        with pytest.raises(ConnectionError):
            call_external_api({"test": "data"})
    with pytest.raises(CircuitBreakerError):
        call_external_api({"test": "data"})
    assert post.call_count == 5


def test_a_success_in_between_starts_the_count_anew(failing) -> None:
    for _ in range(3):
        for _ in range(4):
            with pytest.raises(ConnectionError):
                failing.call()
        failing.outcome = "fine"
        assert failing.call() == "fine"
        failing.outcome = ConnectionError()
    assert failing.breaker.state == "closed"


def test_a_business_answer_is_no_failure_of_the_service(failing) -> None:
    failing.outcome = Declined()
    for _ in range(20):
        with pytest.raises(Declined):
            failing.call()
    assert failing.breaker.state == "closed"


def test_an_open_circuit_says_when_to_come_back(failing, clock) -> None:
    open_it(failing)
    clock.forward(10)
    with pytest.raises(CircuitBreakerError) as refusal:
        failing.call()
    assert breaker.retry_after(refusal.value) == 20


def test_retry_after_of_an_error_made_by_hand_is_the_default() -> None:
    assert breaker.retry_after(CircuitBreakerError("API circuit open"), default=30) == 30


@pytest.mark.described("a circuit is closed, open or half-open")
def test_after_the_timeout_one_success_closes_it(failing, clock) -> None:
    open_it(failing)
    clock.forward(30)
    failing.outcome = "fine"
    assert failing.call() == "fine"
    assert failing.breaker.state == "closed"
    assert failing.breaker.failure_count == 0


def test_after_the_timeout_one_failure_opens_it_for_another_period(failing, clock) -> None:
    open_it(failing)
    clock.forward(30)
    with pytest.raises(ConnectionError):
        failing.call()
    clock.forward(29)
    with pytest.raises(CircuitBreakerError):
        failing.call()
    assert failing.calls == 6


@pytest.mark.described("a circuit is closed, open or half-open")
@pytest.mark.promise("P6", "a service comes back behind an open circuit", "exactly one call tries it")
def test_half_open_lets_exactly_one_of_many_threads_try(name: str, clock) -> None:
    made = Breaker(1, 30, ConnectionError, name)
    release, entered = threading.Event(), threading.Semaphore(0)
    outcomes: list[str] = []

    def fail() -> None:
        raise ConnectionError

    def probe() -> str:
        entered.release()
        assert release.wait(10)
        return "probed"

    def attempt() -> None:
        try:
            outcomes.append(made.call(probe))
        except CircuitBreakerError:
            outcomes.append("refused")

    with pytest.raises(ConnectionError):
        made.call(fail)
    clock.forward(30)
    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert entered.acquire(timeout=10)
    for thread in threads:
        thread.join(0.05)
    assert outcomes == ["refused"] * 7
    release.set()
    for thread in threads:
        thread.join(10)
    assert sorted(outcomes) == ["probed"] + ["refused"] * 7
    assert made.state == "closed"


def test_a_probe_that_hangs_does_not_keep_the_circuit_open_for_ever(name: str, clock) -> None:
    made = Breaker(1, 30, ConnectionError, name)
    assert made._admit() is not None
    with pytest.raises(ConnectionError):
        made.call(lambda: (_ for _ in ()).throw(ConnectionError()))
    clock.forward(30)
    assert made._admit() is not None, "the first probe, which never comes back"
    assert made.state == "open"
    clock.forward(30)
    assert made.call(lambda: "second probe") == "second probe"
    assert made.state == "closed"


def test_a_success_that_began_before_the_circuit_opened_does_not_close_it(failing, name: str) -> None:
    made = failing.breaker
    started, release = threading.Event(), threading.Event()

    def slow() -> str:
        started.set()
        assert release.wait(10)
        return "late"

    thread = threading.Thread(target=made.call, args=(slow,))
    thread.start()
    assert started.wait(10)
    open_it(failing)
    release.set()
    thread.join(10)
    assert made.state == "open"


def test_a_process_that_is_stopped_during_its_probe_gives_the_probe_back(failing, clock) -> None:
    open_it(failing)
    clock.forward(30)
    failing.outcome = SystemExit()
    with pytest.raises(SystemExit):
        failing.call()
    assert failing.breaker.state == "half_open"


def test_failures_of_many_threads_are_all_counted(name: str) -> None:
    made = Breaker(10_000, 30, ConnectionError, name)
    start = threading.Barrier(8)

    def fail() -> None:
        raise ConnectionError

    def hammer() -> None:
        start.wait()
        for _ in range(250):
            with pytest.raises(ConnectionError):
                made.call(fail)

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert made.failure_count == 2000


def test_a_fallback_answers_while_open_and_beside_the_probe(name: str, clock) -> None:
    made = Breaker(1, 30, ConnectionError, name, fallback_function=lambda: "queued_for_retry")

    @made
    def call() -> str:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        call()
    assert call() == "queued_for_retry"
    clock.forward(30)
    assert made._admit() is not None, "another thread's probe is on its way"
    assert call() == "queued_for_retry"


def test_states_list_every_circuit_for_the_metrics(failing, name: str) -> None:
    open_it(failing)
    (state,) = [state for state in breaker.states() if state.name == name]
    assert (state.state, state.failure_count) == ("open", 5)
    assert 29 < state.retry_after <= 30


def test_reset_all_closes_every_circuit(failing) -> None:
    open_it(failing)
    breaker.reset_all()
    failing.outcome = "fine"
    assert failing.call() == "fine"


def test_two_functions_of_one_name_in_two_modules_are_two_circuits() -> None:
    made = circuit()

    @made
    def post() -> None: ...

    assert made.name.startswith("tests.resilience.test_breaker.")


def test_a_threshold_of_zero_is_refused() -> None:
    """The library would read it as its default."""
    with pytest.raises(ValueError, match="threshold"):
        circuit(0)


def test_coroutines_are_refused() -> None:
    async def call() -> None: ...

    with pytest.raises(TypeError, match="plain functions"):
        circuit()(call)


def test_the_with_statement_is_refused() -> None:
    """It would run the body of an open circuit."""
    with pytest.raises(TypeError, match="call"), circuit(name="with"):
        pass
