"""The control room: who sees it, what it says, and that one figure that cannot be read hides no other."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as configured
from django.contrib.auth.models import Permission, User
from django.db.models import F
from django.test import Client

import outbox
from monitoring import samples
from monitoring.models import Sample
from monitoring.room import charts
from orders.models import Order
from orders.seed import seed_demo
from outbox.models import OutboxMessage, Worker
from outbox.testing import drain
from tests.cost.counting import Cost, counting
from tests.orders.conftest import place
from tests.support.tasks import note, permanently_wrong, unavailable_until_told

pytestmark = pytest.mark.django_db

PAGES = ("/", "/control-room/state.json", "/control-room/charts.json")


@pytest.fixture(autouse=True)
def sources(settings: Any) -> None:
    settings.MONITORING_SOURCES = configured.MONITORING_SOURCES


@pytest.fixture
def operator() -> Client:
    user = User.objects.create_user("olga", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_control_room"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def state(operator: Client) -> Callable[[], dict[str, Any]]:
    return lambda: operator.get("/control-room/state.json").json()


@pytest.mark.parametrize("path", PAGES)
def test_without_a_session_it_leads_to_the_login(path: str) -> None:
    answer = Client().get(path)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/admin/login/?next=/")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    ("is_staff", "missing"), [(False, "staff status"), (True, "the permission monitoring.view_control_room")]
)
def test_who_may_not_see_it_is_told_what_is_missing(path: str, is_staff: bool, missing: str) -> None:
    client = Client()
    client.force_login(User.objects.create_user("eve", is_staff=is_staff))
    answer = client.get(path)
    assert answer.status_code == 403
    assert missing in answer.content.decode()


@pytest.mark.parametrize("path", PAGES)
def test_it_is_only_read_and_never_kept(path: str, operator: Client) -> None:
    answer = operator.get(path)
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    assert (operator.post(path).status_code, operator.post(path)["Allow"]) == (405, "GET, HEAD")


def test_an_idle_system_is_well(state: Callable[[], dict[str, Any]]) -> None:
    found = state()
    assert (found["well"], found["verdict"], found["alerts"], found["unread"]) == (
        True,
        "All is well",
        [],
        [],
    )
    queues, circuits = found["tables"][:2]
    assert [queue["queue"] for queue in queues["rows"]] == list(configured.MONITORING_QUEUES)
    assert circuits == {"title": "Open circuits", "rows": []}
    assert all(each["holds"] for each in found["invariants"])
    assert len(found["invariants"]) == 5


def test_it_says_what_fires_with_value_and_threshold(
    settings: Any, state: Callable[[], dict[str, Any]]
) -> None:
    settings.MONITORING_THRESHOLDS = {"max_dead_letters": 1}
    outbox.enqueue_many([permanently_wrong.s("a"), permanently_wrong.s("b")], queue="low")
    drain()
    found = state()
    assert not found["well"]
    (alert,) = (each for each in found["alerts"] if each["name"] == "dead_letters")
    assert (alert["value"], alert["threshold"]) == ("2", "1")
    assert alert["text"].startswith("DLQ has 2")
    assert alert["link"].endswith("#dead_letters")
    assert "alert" in found["verdict"]
    assert {"name": "Dead letters", "value": "2"} in found["figures"]


def test_each_process_is_shown_with_its_last_sign_of_life(
    state: Callable[[], dict[str, Any]],
) -> None:
    """A worker is shown with what it runs, too."""
    worker = Worker.objects.create(
        incarnation=uuid.uuid4(),
        hostname="here",
        pid=7,
        received={"high": 0, "low": 0},
        concurrency=2,
        active=1,
    )
    outbox.enqueue(note.s("a"), queue="low")
    OutboxMessage.objects.update(
        status="published",
        started_at="2026-01-01T00:00Z",
        published_at="2026-01-01T00:00Z",
        worker=f"{worker.pk}:8",
    )
    Worker.objects.create(incarnation=uuid.uuid4(), role="relay", hostname="there", pid=9)
    (workers, daemons, _) = state()["tables"][2:]
    (row,) = workers["rows"]
    assert (row["queues"], row["worker"], row["busy"], row["is_well"]) == (
        "high, low",
        "here (pid 7)",
        "1 of 2",
        True,
    )
    assert row["runs"].startswith("tests.support.tasks.note for ")
    assert row["last heartbeat"].endswith(" s ago")
    (relay,) = daemons["rows"]
    assert (relay["process"], relay["runs at"], relay["is_well"]) == ("relay", "there (pid 9)", True)


def test_retries_are_counted_by_task(state: Callable[[], dict[str, Any]]) -> None:
    outbox.enqueue_many([unavailable_until_told.s(name) for name in "ab"], queue="low")
    outbox.enqueue(note.s("delayed, and no retry"), queue="low", delay=3600)
    OutboxMessage.objects.filter(task__endswith="told").update(
        status="scheduled", generation=2, deliver_at="2999-01-01T00:00Z"
    )
    (*_, retries) = state()["tables"]
    (row,) = retries["rows"]
    assert (row["task"], row["retries"]) == ("tests.support.tasks.unavailable_until_told", 2)


def test_an_order_that_nothing_will_finish_breaks_an_invariant(state: Callable[[], dict[str, Any]]) -> None:
    seed_demo()
    order = place()
    Order.objects.update(created_at=F("created_at") - timedelta(seconds=90))
    assert all(each["holds"] for each in state()["invariants"])
    OutboxMessage.objects.all().delete()
    found = state()
    (broken,) = (each for each in found["invariants"] if not each["holds"])
    assert broken["name"] == "Every open order has a message that will run, or a dead letter"
    assert broken["broken_by"] == f"order {order.pk}"
    assert (found["well"], found["verdict"]) == (False, "1 broken invariant")


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(
    settings: Any, state: Callable[[], dict[str, Any]]
) -> None:
    settings.MONITORING_SOURCES = settings.MONITORING_SOURCES | {
        "outbox": "tests.monitoring.figures.unavailable"
    }
    found = state()
    assert (found["well"], found["unread"]) == (False, ["outbox"])
    assert "no figures of outbox" in found["verdict"]
    assert [figure["name"] for figure in found["figures"]] == ["Dead letters"], "no zeros for what is unknown"


def test_it_says_since_when_no_samples_are_taken(state: Callable[[], dict[str, Any]]) -> None:
    assert "No sample was taken yet" in state()["samples"]
    now = int(time.time()) // samples.EVERY_S * samples.EVERY_S
    sample = Sample.objects.create(tick=now - 600, figures={"orders_a_minute": 3})
    assert state()["samples"] == "No sample since 10 min: is beat running?"
    assert "Orders a minute" not in str(state()["figures"])
    Sample.objects.filter(pk=sample.pk).update(tick=now)
    assert state()["samples"] == ""
    assert {"name": "Orders a minute", "value": "3"} in state()["figures"]


def test_a_total_is_drawn_as_a_rate_with_its_gaps(operator: Client) -> None:
    end = int(time.time()) // 360 * 360
    totals = {0: 0, 15: 30, 30: 90, 60: 150}
    for seconds, total in totals.items():
        Sample.objects.create(tick=end + seconds, figures={"messages_in_total": total, "waiting": total})
    Sample.objects.create(tick=end + 45, figures={"waiting": 7})
    drawn = operator.get("/control-room/charts.json", {"span": "15 min"}).json()
    assert drawn["at"] == [end + seconds for seconds in (0, 15, 30, 45, 60)]
    (messages, waiting) = drawn["charts"]
    assert messages["lines"] == [{"label": "in", "values": [None, 2, 4, None, 2]}]
    assert waiting["lines"] == [{"label": "could run now", "values": [0, 30, 90, 7, 150]}]
    assert waiting["limit"] == 10_000
    day = operator.get("/control-room/charts.json", {"span": "24 h"}).json()
    assert day["charts"][1]["lines"][0]["values"] == [150], "a peak is not averaged away"
    assert operator.get("/control-room/charts.json", {"span": "7 d"}).status_code == 400


def test_a_day_is_drawn_in_a_bounded_number_of_points(operator: Client) -> None:
    now = int(time.time()) // samples.EVERY_S * samples.EVERY_S
    Sample.objects.bulk_create(
        Sample(tick=now - number * samples.EVERY_S, figures={"waiting": number})
        for number in range(samples.KEPT)
    )
    for span in charts.SPANS:
        drawn = operator.get("/control-room/charts.json", {"span": span}).json()
        assert 55 <= len(drawn["at"]) <= charts.POINTS + 1, span


@pytest.mark.parametrize("path", PAGES)
def test_it_costs_the_same_for_one_row_and_for_ten(path: str, operator: Client) -> None:
    seed_demo()

    def more(count: int) -> None:
        for number in range(count):
            Order.objects.filter(pk=place().pk).update(created_at="2026-01-01T00:00Z")
            Worker.objects.create(incarnation=uuid.uuid4(), hostname="h", pid=1)
            outbox.enqueue(permanently_wrong.s(str(number)), queue="low")
            Sample.objects.create(tick=Sample.objects.count(), figures={"waiting": 1})

    def cost() -> Cost:
        assert operator.get(path).status_code == 200
        with counting() as counted:
            operator.get(path)
        return counted

    more(1)
    with_one = cost()
    more(9)
    assert cost() == with_one
