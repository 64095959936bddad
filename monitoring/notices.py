"""Tells people what fires: an email and a webhook when an alert starts, when it ends, and again after hours.

An alert that names queues, tasks, ... is sent again when it names one that it has not named yet.

Beat evaluates the rules, in a thread of its own and not as a task, and sends the messages itself and not through the outbox:
while relay, broker or workers are down, which is what an alert is to tell, a task would not run. Nothing is lost
by it: a row of `FiringAlert` says what each channel was told, and what could not be sent is sent later.

However much fires, a channel gets one message for each evaluation at the most. A channel that fails is tried again after
half a minute, then after twice that time, up to an hour; the other one does not wait for it. An alert that stops firing
for less than `QUIET_S` has not ended.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.core.mail import EmailMessage
from django.db import Error, connection, transaction

from monitoring import conf
from monitoring.alerts import Judgement, current
from monitoring.models import FiringAlert

log = logging.getLogger(__name__)

#: Seconds from one evaluation to the next: an alert that fires is sent within a minute.
EVERY_S = 30.0
#: Seconds that an alert must not have fired for before it counts as ended.
QUIET_S = 90.0
WEBHOOK_TIMEOUT_S = 10.0
MAX_BACKOFF_S = 3_600.0
FIRING, RESOLVED = "firing", "resolved"


class Notifier:
    """Evaluates and tells; how long a channel that fails is left alone, it remembers itself."""

    def __init__(self) -> None:
        self._backoff_s: dict[str, float] = {}
        self._not_before: dict[str, float] = {}

    def run_once(self) -> int:
        """Evaluate the rules and send what is due; returns how many messages were sent. Raises Django's database errors.

        One process at a time: another one meanwhile sends nothing.
        """
        found = current()
        # Until what was sent is written down no other process may send it. Both channels have a timeout of seconds.
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_try_advisory_xact_lock(hashtext('monitoring.notices')), clock_timestamp()"
                )
                locked, now = cursor.fetchone()
            if not locked:
                return 0
            rows = remember(found, now)
            channels = configured()
            sent = sum(self._tell(channel, send, rows, now) for channel, send in channels.items())
            for row in rows:
                told = {channel: row.told.get(channel, {}).get("state") for channel in channels}
                if row.resolved_at and all(state == RESOLVED for state in told.values()):
                    row.delete()
                else:
                    row.save()
        return sent

    def _tell(
        self, channel: str, send: Callable[[str, str], None], rows: Sequence[FiringAlert], now: datetime
    ) -> bool:
        due = [row for row in rows if _is_due(row.told.get(channel, {}), row, now)]
        if not due or time.monotonic() < self._not_before.get(channel, 0.0):
            return False
        try:
            send(*_written(due))
        except Exception as error:
            backoff_s = min(MAX_BACKOFF_S, self._backoff_s.get(channel, EVERY_S / 2) * 2)
            self._backoff_s[channel] = backoff_s
            self._not_before[channel] = time.monotonic() + backoff_s
            log.warning(
                "The alerts could not be sent by %s, next try in %.0f s: %s: %s",
                channel,
                backoff_s,
                type(error).__name__,
                error,
            )
            return False
        self._backoff_s.pop(channel, None)
        for row in due:
            state = RESOLVED if row.resolved_at else FIRING
            about = _named(row.told.get(channel, {})) | set(row.about)
            row.told[channel] = {"state": state, "at": now.timestamp(), "about": sorted(about)}
        return True


def remember(found: Judgement, now: datetime) -> list[FiringAlert]:
    """The rows of what fires and of what has ended, brought up to date and not saved yet."""
    rows = {row.name: row for row in FiringAlert.objects.all()}
    for alert in found.alerts:
        row = rows.setdefault(alert.name, FiringAlert(name=alert.name, since=now))
        if row.resolved_at or row.is_about_others(alert.about):
            row.since, row.resolved_at = now, None
        row.about = list(alert.about)
        row.text, row.value, row.threshold, row.seen_at = alert.text, alert.value, alert.threshold, now
    for row in rows.values():
        if row.name in found.unjudged and row.resolved_at is None:
            row.seen_at = now
        elif row.resolved_at is None and row.seen_at <= now - timedelta(seconds=QUIET_S):
            row.resolved_at = now
    return list(rows.values())


def _is_due(told: dict[str, Any], row: FiringAlert, now: datetime) -> bool:
    if row.resolved_at:
        # One that ended while the channel was down is still sent, as ended.
        return told.get("state") != RESOLVED
    if told.get("state") != FIRING or not _named(told).issuperset(row.about):
        return True
    return bool(told["at"] <= now.timestamp() - conf.alert_repeat_s())


def _named(told: dict[str, Any]) -> set[str]:
    """What a channel was told since the alert began."""
    return set(told.get("about", ())) if told.get("state") == FIRING else set()


def _written(rows: Iterable[FiringAlert]) -> tuple[str, str]:
    """Subject and text of one message about these."""
    lines: dict[str, list[str]] = {FIRING: [], RESOLVED: []}
    names: dict[str, list[str]] = {FIRING: [], RESOLVED: []}
    for row in rows:
        state = RESOLVED if row.resolved_at else FIRING
        names[state].append(row.name)
        until = f" until {row.resolved_at:%H:%M:%S}" if row.resolved_at else ""
        lines[state].append(
            f"{state}: {row.text}\n  {row.name}: {row.value:g}, threshold {row.threshold:g},"
            f" since {row.since:%Y-%m-%d %H:%M:%S}{until} UTC\n  what to do: {conf.runbook()}#{row.name}"
        )
    subject = "; ".join(f"{state}: {', '.join(names[state])}" for state in (FIRING, RESOLVED) if names[state])
    return subject, "\n\n".join(lines[FIRING] + lines[RESOLVED])


def configured() -> dict[str, Callable[[str, str], None]]:
    """The channels that the settings name."""
    channels: dict[str, Callable[[str, str], None]] = {}
    if conf.alert_emails():
        channels["email"] = _email
    if conf.alert_webhook_url():
        channels["webhook"] = _post
    return channels


def _email(subject: str, text: str) -> None:
    EmailMessage(subject=f"[alert] {subject}"[:200], body=text, to=list(conf.alert_emails())).send()


def _post(subject: str, text: str) -> None:
    """JSON of {"subject", "text"}: `text` is what chat services show."""
    request = urllib.request.Request(
        conf.alert_webhook_url(),
        data=json.dumps({"subject": subject, "text": f"{subject}\n\n{text}"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_S):
        pass


def begin(**_: Any) -> None:
    """Evaluate from now on, in a thread; the receiver of `beat_init`. Does nothing without `MONITORING_SOURCES`."""
    if conf.sources():
        threading.Thread(target=run, args=(threading.Event(),), name="monitoring-alerts", daemon=True).start()


def run(stop: threading.Event) -> None:
    """Evaluate every `EVERY_S` seconds until `stop` is set; waits out the loss of the database."""
    notifier = Notifier()
    while not stop.wait(EVERY_S):
        try:
            notifier.run_once()
        except Error as error:
            log.warning("The alerts could not be evaluated: %s", str(error).strip().partition("\n")[0])
        finally:
            connection.close()
