import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitoring.alerts import RULES
from monitoring.metrics import registry

QUEUES = ("critical", "high", "default", "low")


@pytest.fixture(autouse=True)
def no_samples(settings) -> None:
    """So that these tests need no database."""
    settings.MONITORING_SERIES = {}


@pytest.fixture
def scrape(client):
    """The samples of one scrape: (name, labels as a sorted tuple) -> value."""

    def get() -> dict:
        response = client.get("/metrics")
        assert response.status_code == 200
        assert response["Content-Type"].startswith("text/plain")
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(response.content.decode())
            for sample in family.samples
        }

    return get


@pytest.mark.described(
    "metrics, here with the prefix `holdfast_`: `jobs_enqueued_total`, `jobs_processed_total`, "
    "`jobs_failed_total`, `queue_depth`, `processing_latency_seconds`, `workers_active`, `workers_idle`, `memory_usage`"
)
def test_the_figures_of_the_sources_are_exposed_under_the_documented_names(scrape) -> None:
    samples = scrape()
    critical = (("queue", "critical"),)
    assert samples["holdfast_queue_depth", critical] == 10
    assert samples["holdfast_queue_published", (("queue", "critical"),)] == 5
    assert samples["holdfast_jobs_processing", critical] == 4
    assert samples["holdfast_jobs_processed_per_second", critical] == 9.5
    assert samples["holdfast_jobs_enqueued_total", critical] == 900
    assert samples["holdfast_jobs_processed_total", critical] == 600
    assert samples["holdfast_jobs_failed_total", critical] == 4
    latency = [
        samples["holdfast_processing_latency_seconds_bucket", (("le", le), *critical)]
        for le in ("0.1", "5.0", "+Inf")
    ]
    assert latency == [500, 590, 600]
    assert samples["holdfast_processing_latency_seconds_sum", critical] == 120
    assert samples["holdfast_memory_usage", ()] == 4096
    assert samples["holdfast_queue_oldest_pending_age_seconds", critical] == 12.5
    assert samples["holdfast_workers_up", ()] == 3
    assert samples["holdfast_workers_active", ()] == 4
    assert samples["holdfast_workers_idle", ()] == 5
    assert (samples["holdfast_relay_up", ()], samples["holdfast_beat_up", ()]) == (2, 1)
    assert samples["holdfast_jobs_retrying", (("task", "orders.tasks.sync_to_crm"),)] == 4
    assert samples["holdfast_circuit_open", (("circuit", "payment-gateway"),)] == 0
    assert samples["holdfast_orders_oldest_open_age_seconds", ()] == 30
    assert samples["holdfast_webhooks_deliveries", (("status", "sent"),)] == 7
    assert samples["holdfast_outbox_runs_repeated", ()] == 13
    assert samples["holdfast_outbox_copies_skipped_total", (("reason", "duplicate"),)] == 9
    assert samples["holdfast_outbox_copies_skipped_total", (("reason", "missing"),)] == 2
    dead_letter = (("queue", "critical"), ("state", "open"), ("task", "orders.tasks.process_order"))
    assert samples["holdfast_dlq_messages", dead_letter] == 2
    assert samples["holdfast_dlq_oldest_unresolved_age_seconds", ()] == 3600
    assert samples["holdfast_dlq_replays_total", (("outcome", "failed"),)] == 1
    assert samples["holdfast_findings_open", (("kind", "refund_overdue"),)] == 3
    assert samples["holdfast_findings_for_a_person", (("kind", "refund_overdue"),)] == 0
    died = (("exception", "ValueError"), ("task", "orders.tasks.process_order"))
    assert samples["holdfast_dlq_dead_lettered_total", died] == 6


def test_sums_that_pruning_lowers_are_gauges_and_totals_are_counters(outbox_figures, dlq_figures) -> None:
    counters = {family.name for family in registry.collect() if family.type == "counter"}
    assert counters == {
        "holdfast_http_responses",
        "holdfast_jobs_enqueued",
        "holdfast_jobs_processed",
        "holdfast_jobs_failed",
        "holdfast_outbox_copies_skipped",
        "holdfast_dlq_dead_lettered",
        "holdfast_dlq_replays",
    }


def test_every_series_is_there_with_zero_before_anything_has_happened(
    scrape, outbox_figures, dlq_figures
) -> None:
    outbox_figures.clear()
    dlq_figures.clear()
    samples = scrape()
    for queue in QUEUES:
        assert samples["holdfast_queue_depth", (("queue", queue),)] == 0
        for counter in ("enqueued", "processed", "failed"):
            assert samples[f"holdfast_jobs_{counter}_total", (("queue", queue),)] == 0
        assert samples["holdfast_processing_latency_seconds_count", (("queue", queue),)] == 0
        assert samples["holdfast_jobs_error_ratio", (("queue", queue),)] == 0
        for state in ("open", "replaying"):
            assert samples["holdfast_dlq_messages", (("queue", queue), ("state", state), ("task", ""))] == 0
    assert samples["holdfast_dlq_replays_total", (("outcome", "succeeded"),)] == 0
    assert samples["holdfast_outbox_runs_repeated", ()] == 0
    assert {value for name, value in samples.items() if name[0] == "holdfast_alert_firing"} == {0}


def test_an_alert_that_fires_is_a_one(scrape, dlq_figures) -> None:
    dlq_figures["open"] = 101
    samples = scrape()
    assert samples["holdfast_alert_firing", (("alert", "dead_letters"),)] == 1
    assert samples["holdfast_alert_firing", (("alert", "queue_depth"),)] == 0


@pytest.mark.promise(
    "P8", "the database is down", "`/readyz` 503 that names it; `/metrics` with gaps and not with zeros"
)
def test_a_source_that_is_down_is_a_gap_and_not_a_zero(scrape, settings, caplog) -> None:
    settings.MONITORING_SOURCES = settings.MONITORING_SOURCES | {
        "outbox": "tests.monitoring.figures.unavailable"
    }

    samples = scrape()

    assert samples["holdfast_source_up", (("source", "outbox"),)] == 0
    assert samples["holdfast_source_up", (("source", "dlq"),)] == 1
    names = {name for name, _ in samples}
    assert "holdfast_dlq_open" in names
    assert not names & {"holdfast_queue_depth", "holdfast_jobs_processing"}
    assert "the database is unavailable" in caplog.text


def test_without_a_source_its_own_alerts_are_gaps_and_the_others_fire(scrape, settings, dlq_figures) -> None:
    dlq_figures["open"] = 101
    settings.MONITORING_SOURCES = settings.MONITORING_SOURCES | {
        "findings": "tests.monitoring.figures.unavailable"
    }
    samples = scrape()
    assert samples["holdfast_source_up", (("source", "findings"),)] == 0
    assert "holdfast_findings_open" not in {name for name, _ in samples}
    alerts = {
        dict(labels)["alert"]: value
        for (name, labels), value in samples.items()
        if name == "holdfast_alert_firing"
    }
    assert alerts.keys() == RULES.keys() - {"findings"}
    assert [name for name, value in alerts.items() if value] == ["dead_letters", "source_unreadable"]


def test_http_answers_are_counted_by_the_class_of_their_status(client, scrape) -> None:
    """Answers to probes are not."""

    def count(status_class: str) -> float:
        return scrape()["holdfast_http_responses_total", (("status_class", status_class),)]

    before = [count(status_class) for status_class in ("2xx", "4xx", "5xx")]
    assert client.get("/no-such-page").status_code == 404
    assert client.get("/healthz").status_code == 200
    assert [count(status_class) for status_class in ("2xx", "4xx", "5xx")] == [
        before[0],
        before[1] + 1,
        before[2],
    ]


def test_every_series_begins_with_the_one_prefix(scrape) -> None:
    assert [name for name, _ in scrape() if not name.startswith("holdfast_")] == []


def test_invented_paths_methods_and_headers_are_no_labels(client, scrape) -> None:
    before = scrape().keys()
    client.generic(
        "INVENTED", "/invented?invented=1", headers={"X-Request-ID": "invented", "Host": "invented"}
    )
    assert scrape().keys() == before


def test_no_series_is_labelled_with_an_id(scrape) -> None:
    labels = {label for _, pairs in scrape() for label, _ in pairs}
    known = {
        "queue",
        "task",
        "state",
        "exception",
        "outcome",
        "reason",
        "alert",
        "source",
        "kind",
        "circuit",
        "status",
        "status_class",
        "le",
    }
    assert labels <= known
