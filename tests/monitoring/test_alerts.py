import pytest
from django.utils import timezone

from monitoring.alerts import evaluate
from monitoring.rules import RULES
from monitoring.snapshot import Daemons, PausedTask, QueueSnapshot, Snapshot, TaskSnapshot
from monitoring.thresholds import Thresholds

EXPECTED = Thresholds(expected_per_minute=600)


def system(
    *,
    workers: int = 1,
    workers_lately: int = 0,
    dead_letter_count: int = 0,
    dead_letters_grown: int = 0,
    oldest_dead_letter_age_s: float = 0.0,
    findings: int = 0,
    relays: Daemons = Daemons(),  # noqa: B008  (it is immutable)
    beats: Daemons = Daemons(),  # noqa: B008
    ran: TaskSnapshot | None = None,
    open_circuits: dict[str, int] | None = None,
    paused_tasks: dict[str, PausedTask] | None = None,
    oldest_order_age_s: float = 0.0,
    unreadable: dict[str, str] | None = None,
    **queue,
) -> Snapshot:
    return Snapshot(
        relays=relays,
        beats=beats,
        tasks={"pay": ran} if ran else {},
        open_circuits=open_circuits or {},
        paused_tasks=paused_tasks or {},
        oldest_order_age_s=oldest_order_age_s,
        oldest_order="order 7",
        unreadable=unreadable or {},
        workers=workers,
        workers_lately=workers_lately,
        dead_letters_grown=dead_letters_grown,
        taken_at=timezone.now(),
        queues={"default": QueueSnapshot("default", **queue), "low": QueueSnapshot("low")},
        dead_letter_count=dead_letter_count,
        oldest_dead_letter_age_s=oldest_dead_letter_age_s,
        findings_for_a_person={"captured_twice": findings, "refund_failed": 0},
    )


def names(snapshot: Snapshot, thresholds: Thresholds | None = None) -> list[str]:
    return [alert.name for alert in evaluate(snapshot, thresholds)]


@pytest.mark.described("alerts: depth over 10,000, less than half of the expected rate, more than 5 % errors")
@pytest.mark.promise("P8", "every worker is down", "the alert `workers_gone` as soon as something waits")
@pytest.mark.parametrize(
    ("well", "ill", "name"),
    [
        (
            system(pending=10_000, done_last_minute=300),
            system(pending=10_001, done_last_minute=300),
            "queue_depth",
        ),
        (
            system(done_last_minute=95, failed_last_minute=5),
            system(done_last_minute=94, failed_last_minute=6),
            "error_rate",
        ),
        (
            system(pending=1, done_last_minute=300),
            system(pending=1, done_last_minute=300, workers=0),
            "workers_gone",
        ),
        (system(dead_letter_count=100), system(dead_letter_count=101), "dead_letters"),
        (system(oldest_dead_letter_age_s=86_400), system(oldest_dead_letter_age_s=86_401), "dead_letter_age"),
        (system(findings=0), system(findings=1), "findings"),
        (system(oldest_pending_age_s=900), system(oldest_pending_age_s=901), "pending_age"),
        (system(oldest_repeated_age_s=345_600), system(oldest_repeated_age_s=345_601), "repeated_age"),
        (system(), system(unusable="WRONGTYPE"), "queue_unusable"),
        (system(), system(paused_tasks={"pay": PausedTask("paused by alice")}), "task_paused"),
        (system(dead_letters_grown=12), system(dead_letters_grown=13), "dead_letters_growing"),
        (system(open_circuits={"gateway": 0}), system(open_circuits={"gateway": 1}), "circuit_open"),
        (
            system(ran=TaskSnapshot(9, failed=5, done=5)),
            system(ran=TaskSnapshot(9, failed=6, done=5)),
            "retry_share",
        ),
        (
            system(ran=TaskSnapshot(9, failed=4, done=0)),
            system(ran=TaskSnapshot(9, failed=5, done=0)),
            "retry_share",
        ),
        (system(oldest_order_age_s=600), system(oldest_order_age_s=601), "order_age"),
        (system(relays=Daemons(True, 1, 1)), system(relays=Daemons(True, 0, 1)), "relay_lost"),
        (system(relays=Daemons(True, 2, 2)), system(relays=Daemons(True, 1, 2)), "relay_lost"),
        (system(relays=Daemons(False, 0, 0)), system(relays=Daemons(True, 0, 0)), "relay_lost"),
        (system(beats=Daemons(False, 0, 0)), system(beats=Daemons(True, 0, 0)), "beat_lost"),
        (system(), system(unreadable={"dlq": "ConnectionError: down"}), "source_unreadable"),
        (system(workers=2, workers_lately=2), system(workers=2, workers_lately=3), "workers_lost"),
        (
            system(pending=1, done_last_minute=300),
            system(pending=1, done_last_minute=299),
            "processing_rate",
        ),
    ],
)
def test_each_rule_fires_beyond_its_threshold_and_not_at_it(well: Snapshot, ill: Snapshot, name: str) -> None:
    assert names(well, EXPECTED) == []
    assert names(ill, EXPECTED) == [name]


def test_a_quiet_night_is_no_dropped_rate() -> None:
    assert names(system(done_last_minute=0), EXPECTED) == []


def test_without_an_expected_rate_that_rule_rests() -> None:
    assert names(system(pending=1, done_last_minute=0), Thresholds()) == []


def test_an_alert_says_what_is_wrong_with_its_figures() -> None:
    (alert,) = evaluate(system(pending=12_345))
    assert alert.text == "Queue backing up: 12345 messages wait, 12345 of them in default"
    assert (alert.value, alert.threshold) == (12_345, 10_000)


def test_the_alert_of_findings_names_their_kinds() -> None:
    (alert,) = evaluate(system(findings=2))
    assert alert.text == "Ledgers disagree: 2 findings need a person: captured_twice (2)"


def test_several_alerts_fire_together() -> None:
    assert names(system(pending=20_000, dead_letter_count=500)) == ["queue_depth", "dead_letters"]


def test_settings_override_single_thresholds(settings) -> None:
    settings.MONITORING_THRESHOLDS = {"max_depth": 5}
    assert names(system(pending=6, dead_letter_count=101)) == ["queue_depth", "dead_letters"]


def test_a_queue_with_shorter_schedules_has_its_own_threshold() -> None:
    thresholds = Thresholds(max_repeated_age_by_queue={"default": 3600.0})
    assert names(system(scheduled=1, oldest_repeated_age_s=3600), thresholds) == []
    (alert,) = evaluate(system(scheduled=1, oldest_repeated_age_s=7200), thresholds)
    assert (alert.name, alert.threshold) == ("repeated_age", 3600)
    assert alert.text == "Deferred again and again: a message in default was enqueued 2 h ago"


def test_a_misspelt_threshold_is_an_error_and_not_ignored(settings) -> None:
    settings.MONITORING_THRESHOLDS = {"max_deph": 5}
    with pytest.raises(TypeError, match="max_deph"):
        evaluate(system())


def test_a_rule_is_known_by_the_name_of_its_alert() -> None:
    everything = system(
        workers=0, workers_lately=1, dead_letters_grown=99, oldest_repeated_age_s=999_999,
        pending=20_000, failed_last_minute=9, oldest_pending_age_s=9999, dead_letter_count=500,
        oldest_dead_letter_age_s=99_999, findings=1, unusable="WRONGTYPE", open_circuits={"gateway": 2},
        ran=TaskSnapshot(9, 9, 0), oldest_order_age_s=9999, relays=Daemons(True, 0, 1), beats=Daemons(True, 0, 1),
        unreadable={"dlq": "ConnectionError: down"}, paused_tasks={"pay": PausedTask()},
    )  # fmt: skip
    assert sorted(names(everything, EXPECTED)) == sorted(RULES)
