"""common/leases.py: one claim is one statement, and of several claims at once one is granted."""

import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.utils import timezone

from common.leases import LeaseHeld
from notifications.models import MAIL_LEASE, EmailLog
from tests.cost.counting import Cost, counting
from tests.support.locks import wait_until_blocked

pytestmark = pytest.mark.django_db(transaction=True)


def claim(key: str = "receipt-order-1", *, to: str = "ann@example.com") -> EmailLog:
    new = EmailLog(key=key, message_id="<1@example.com>", template_name="receipt", to=to)
    return EmailLog.claim_row(new, corrects=("to",))


def cost_of(act: Callable[[], object]) -> Cost:
    connection.ensure_connection()
    with counting() as cost:
        act()
    return cost


def in_thread(outcomes: list[EmailLog | Exception]) -> threading.Thread:
    """A thread, begun, that claims on a connection of its own and adds what came of it."""

    def run() -> None:
        with closing(connections["default"]):
            try:
                outcomes.append(claim())
            except (LeaseHeld, IntegrityError) as error:
                outcomes.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_claim_is_one_statement_and_one_commit() -> None:
    """Whether its row is new or was released before."""
    assert cost_of(claim) == Cost(statements=1, commits=1)
    EmailLog.objects.get().release(error="refused")
    assert cost_of(claim) == Cost(statements=1, commits=1)


def test_a_claim_of_what_was_sent_is_two_statements_and_changes_nothing() -> None:
    claim().mark_sent()
    before = EmailLog.objects.values().get()
    assert cost_of(lambda: claim(to="bob@example.com")) == Cost(statements=2, commits=2)
    assert EmailLog.objects.values().get() == before


def test_a_claim_returns_the_row_as_it_is_stored() -> None:
    for _ in range(2):
        claimed = claim()
        assert vars(claimed).keys() >= {"key", "to", "lease_token", "attempts"}
        stored = EmailLog.objects.get()
        assert {field.name: getattr(claimed, field.name) for field in EmailLog._meta.concrete_fields} == {
            field.name: getattr(stored, field.name) for field in EmailLog._meta.concrete_fields
        }
        stored.release(error="refused")
    assert claim(to="bob@example.com").to == EmailLog.objects.get().to == "bob@example.com"
    assert EmailLog.objects.get().attempts == 3


def test_a_claim_that_meets_a_lease_changes_nothing() -> None:
    """It says how long the lease still runs."""
    claim()
    before = EmailLog.objects.values().get()
    with pytest.raises(LeaseHeld, match="receipt-order-1 is being sent") as held:
        claim(to="bob@example.com")
    assert MAIL_LEASE.total_seconds() - 10 < held.value.seconds_left <= MAIL_LEASE.total_seconds()
    assert EmailLog.objects.values().get() == before


def test_of_two_claims_of_an_expired_lease_one_is_granted() -> None:
    """The two come at once, and the one that is granted gets a whole lease."""
    claim()
    EmailLog.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    outcomes: list[EmailLog | Exception] = []
    with transaction.atomic():
        EmailLog.objects.select_for_update().get()
        threads = [in_thread(outcomes) for _ in range(2)]
        wait_until_blocked(2)
        released_at = timezone.now()
    for thread in threads:
        thread.join()

    (granted,) = [each for each in outcomes if isinstance(each, EmailLog)]
    assert [type(each) for each in outcomes if each is not granted] == [LeaseHeld]
    row = EmailLog.objects.get()
    assert (row.lease_token, row.attempts) == (granted.lease_token, 2)
    assert row.lease_until is not None
    assert row.lease_until - released_at >= MAIL_LEASE


def test_a_claim_waits_for_an_uncommitted_insert_of_its_row() -> None:
    """It takes the row over when that insert is rolled back."""
    outcomes: list[EmailLog | Exception] = []
    with transaction.atomic():
        EmailLog.objects.create(key="receipt-order-1", message_id="<1@example.com>")
        thread = in_thread(outcomes)
        wait_until_blocked(1)
        transaction.set_rollback(True)
    thread.join()
    assert [each.attempts for each in outcomes if isinstance(each, EmailLog)] == [1]


def test_an_insert_that_loses_in_the_second_unique_index_finds_the_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two inserts at once that both found no row of the key: about one in 400 on two cores fails like this."""
    take, errors = EmailLog._take, [IntegrityError("duplicate key value: message_id")]

    def take_too_late(new: EmailLog, corrects: tuple[str, ...]) -> EmailLog | None:
        if not errors:
            return take(new, corrects)
        EmailLog.objects.create(key=new.key, message_id=new.message_id)
        raise errors.pop()

    monkeypatch.setattr(EmailLog, "_take", take_too_late)
    assert claim().attempts == 1
    assert EmailLog.objects.get().lease_token is not None


def test_a_row_that_differs_only_in_its_key_is_refused() -> None:
    claim()
    with pytest.raises(IntegrityError, match="message_id"):
        claim("receipt-order-2")
