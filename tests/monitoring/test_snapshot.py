import pytest

from monitoring.snapshot import QueueMonitor


def test_depth_is_what_could_run_now_and_waits_wherever_it_waits() -> None:
    snapshot = QueueMonitor().snapshot()
    assert snapshot.queues["critical"].depth == 3 + 2 + 5
    assert snapshot.depth == 10


def test_what_is_scheduled_for_later_is_no_backlog() -> None:
    snapshot = QueueMonitor().snapshot()
    assert snapshot.scheduled == 7
    assert snapshot.depth == 10


def test_processing_counts_what_workers_execute() -> None:
    assert QueueMonitor().snapshot().processing == 4


def test_throughput_is_completed_messages_per_second() -> None:
    snapshot = QueueMonitor().snapshot()
    assert snapshot.throughput_per_sec == 10.0
    assert snapshot.queues["critical"].throughput_per_sec == 9.5


def test_latency_is_weighted_by_what_each_queue_completed() -> None:
    assert QueueMonitor().snapshot().avg_latency_ms == pytest.approx((570 * 200 + 30 * 2200) / 600)


def test_error_rate_is_the_share_of_failed_runs() -> None:
    snapshot = QueueMonitor().snapshot()
    assert snapshot.queues["critical"].error_rate == pytest.approx(0.05)
    assert snapshot.error_rate == pytest.approx(30 / 630)


def test_dead_letters_and_ages_are_reported() -> None:
    snapshot = QueueMonitor().snapshot()
    assert snapshot.dead_letter_count == 2
    assert snapshot.oldest_dead_letter_age_s == 3600.0
    assert snapshot.oldest_pending_age_s == 12.5


def test_a_known_queue_is_reported_although_nothing_is_in_it() -> None:
    assert list(QueueMonitor().snapshot().queues) == ["critical", "high", "default", "low"]


def test_a_queue_that_only_the_figures_know_is_reported_too(outbox_figures) -> None:
    outbox_figures["queues"]["legacy"] = {"pending": 1}
    assert QueueMonitor().snapshot().queues["legacy"].depth == 1


def test_an_idle_system_divides_by_nothing(outbox_figures, dlq_figures) -> None:
    outbox_figures.clear()
    dlq_figures.clear()
    snapshot = QueueMonitor().snapshot()
    assert (
        snapshot.depth == snapshot.throughput_per_sec == snapshot.avg_latency_ms == snapshot.error_rate == 0
    )
    assert snapshot.oldest_pending_age_s == 0


def test_failures_without_any_success_are_an_error_rate_of_one(outbox_figures) -> None:
    outbox_figures["done_last_minute"] = {}
    assert QueueMonitor().snapshot().error_rate == 1.0


def test_a_source_that_is_down_is_not_reported_as_an_idle_system(settings) -> None:
    settings.MONITORING_SOURCES = {"outbox": "tests.monitoring.figures.unavailable"}
    with pytest.raises(ConnectionError):
        QueueMonitor().snapshot()
