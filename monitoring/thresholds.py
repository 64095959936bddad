"""The thresholds of the alert rules (`monitoring/rules.py`), and why each has its default."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Thresholds:
    """The values beyond which a rule fires; `MONITORING_THRESHOLDS` overrides single fields."""

    #: Messages that wait, over all queues.
    max_depth: int = 10_000
    #: Completed messages that this installation expects; 0: as many as in the last hours, and below `min_usual_per_minute`
    #: of them the rule does not fire: so few may come in bursts.
    expected_per_minute: float = 0.0
    min_usual_per_minute: float = 10.0
    #: What has waited for a shorter time is on its way.
    min_wait_s: float = 60.0
    #: Of the expected rate: half of it is no fluctuation any more.
    min_rate_share: float = 0.5
    #: Messages that died of all that ended in the last minute.
    max_error_rate: float = 0.05
    #: Open dead letters.
    max_dead_letters: int = 100
    #: Open dead letters more than an hour ago: at this pace `max_dead_letters` is reached within a working day.
    max_dead_letter_growth: int = 12
    #: Longer than any lease plus its rescue: what waits this long is not picked up at all.
    max_pending_age_s: float = 900.0
    #: Longer than the longest schedule of retries that is usual, three days for an endpoint that is down over a
    #: weekend: what is older is deferred again and again, and no attempt of it will ever be the last.
    max_repeated_age_s: float = 345_600.0
    #: The same for queues whose schedules are shorter.
    max_repeated_age_by_queue: Mapping[str, float] = field(default_factory=dict)
    #: Queues that the broker takes nothing for, while it works for others.
    max_unusable_queues: int = 0
    #: Tasks of which an operator has everything wait.
    max_paused_tasks: int = 0
    #: Workers that were there lately, did not end in order, and have not come back.
    max_workers_lost: int = 0
    #: Circuits that are open in some process: what is behind them is not called.
    max_open_circuits: int = 0
    #: Of a task's messages that ran in the last five minutes: those that failed and wait for another attempt. Three of
    #: ten fail in the lab on purpose, and that heals; where half of them fail, it is an outage.
    max_retry_share: float = 0.5
    #: With fewer failures than these a share says nothing.
    min_retries: int = 5
    #: An order is charged within seconds, and after its second failure within minutes.
    max_order_age_s: float = 600.0
    #: Relays, and beats, that were there lately, did not end in order, and have not come back.
    max_relays_lost: int = 0
    max_beats_lost: int = 0
    #: Sources of figures that cannot be read: their rules cannot judge.
    max_unreadable_sources: int = 0
    #: A day: operators look at the dead letters more often than that.
    max_dead_letter_age_s: float = 86_400.0
    #: Differences from the outside world that nothing repairs by itself: each is somebody's money.
    max_findings: int = 0
