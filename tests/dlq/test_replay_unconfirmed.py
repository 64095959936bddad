"""The broker is lost around the publish of a replay: one copy at most, and the dead letter says what is known."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.core.management import CommandError, call_command

from dlq import replay, resend, stats
from dlq.message import REPLAY_HEADER
from dlq.models import DeadLetter, DeadLetterEvent, Happened, State
from dlq.replay import NotReplayable
from tests.dlq.test_record import receive
from tests.support import rawpublish
from tests.support.brokers import on_rabbitmq_in_proof, using
from tests.support.proxy import Proxy, proxied

pytestmark = [pytest.mark.usefixtures("clean"), on_rabbitmq_in_proof]


@pytest.fixture
def proxy(broker: str) -> Iterator[Proxy]:
    """In front of the broker."""
    url = urlsplit(broker)
    with proxied(str(url.hostname), int(url.port or 0)) as proxy:
        yield proxy


def through(broker: str, proxy: Proxy) -> str:
    url = urlsplit(broker)
    user, at, _ = url.netloc.rpartition("@")
    return urlunsplit(url._replace(netloc=f"{user}{at}127.0.0.1:{proxy.port}"))


@pytest.fixture
def dead_letter() -> DeadLetter:
    return receive(task="tests.support.tasks.note")


def test_a_replay_whose_confirmation_is_lost_is_published_once_and_stays_replaying(
    broker: str, proxy: Proxy, dead_letter: DeadLetter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rawpublish.depth() == 0  # declares the queue, without which RabbitMQ takes nothing
    proxy.stall_after(REPLAY_HEADER.encode())
    monkeypatch.setattr(resend, "CONFIRM_WITHIN_S", 1)
    with using(through(broker, proxy), socket_timeout=1), pytest.raises(NotReplayable, match="may have been"):
        replay.replay(dead_letter.pk)
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.REPLAYING
    assert rawpublish.depth() == 1
    with pytest.raises(NotReplayable, match="is replaying"):
        replay.replay(dead_letter.pk)


def test_a_replay_the_broker_never_received_leaves_the_dead_letter_open(
    broker: str, proxy: Proxy, dead_letter: DeadLetter, capsys: pytest.CaptureFixture[str]
) -> None:
    """And otherwise as it was."""
    before = DeadLetter.objects.values().get(), stats.stats()["dead_lettered"]
    proxy.refuse()
    with using(through(broker, proxy)):
        with pytest.raises(NotReplayable, match=r"did not take it: .* Its dead letter is open as before"):
            replay.replay(dead_letter.pk, actor="alice")
        with pytest.raises(CommandError, match="1 of 1 were not sent again"):
            call_command("dlq", "replay", dead_letter.message_id)
    assert "could not be published, the broker did not take it" in capsys.readouterr().err
    DeadLetter.objects.update(replayed_at=None)
    assert (DeadLetter.objects.values().get(), stats.stats()["dead_lettered"]) == before
    events = DeadLetterEvent.objects.values_list("what", flat=True)
    assert list(events) == [Happened.FAILED, *2 * [Happened.REPLAYED, Happened.RETURNED]]
    assert "the broker did not take it" in DeadLetterEvent.objects.latest("id").note
    assert stats.stats()["replays"] == {"sent": 2, "succeeded": 0, "failed": 0, "returned": 2}
