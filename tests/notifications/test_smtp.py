"""Against a real mail server: one mail a key, whatever the connection does."""

import smtplib
import socket
import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from notifications.errors import MailInFlight, MailNotSent, MailRefused
from notifications.mailer import send_once
from notifications.models import EmailLog, RenderedEmail
from tests.lab.sandbox_fixture import RunningSandbox
from tests.support.database import lose_connection
from tests.support.locks import wait_until_blocked

pytestmark = pytest.mark.django_db(transaction=True)

MAIL = RenderedEmail(subject="Grüße", body="Schöne Grüße\n.\nEnd\n")


def send(key: str = "receipt-order-1", to: str = "ann@example.com") -> dict[str, str]:
    return send_once(key=key, to=to, mail=MAIL, template_name="receipt")


def test_a_mail_arrives_whole_with_the_message_id_of_its_key(sandbox_settings: RunningSandbox):
    send()
    (mail,) = sandbox_settings.ledger("mail")
    assert (mail["message_id"], mail["to"], mail["subject"]) == (
        "<receipt-order-1@holdfast.example>",
        ["ann@example.com"],
        "Grüße",
    )
    assert "Auto-Submitted: auto-generated" in mail["raw"]


def test_five_senders_at_once_send_one_mail(sandbox_settings: RunningSandbox):
    sandbox_settings.faults(mail={"latency_ms": 300})  # so that they really overlap
    barrier, outcomes = threading.Barrier(5), []

    def run() -> None:
        try:
            barrier.wait()
            outcomes.append(send()["status"])
        except MailInFlight:
            outcomes.append("in flight")
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["in flight"] * 4 + ["sent"]
    assert sandbox_settings.summary("mail")["copies"] == 1


def test_claims_of_a_mail_that_failed_before_take_turns(sandbox_settings: RunningSandbox):
    sandbox_settings.faults(mail={"error_rate": 1})
    with pytest.raises(MailNotSent):
        send()
    sandbox_settings.faults(mail={"latency_ms": 300})
    outcomes: list[str] = []

    def run() -> None:
        try:
            outcomes.append(send()["status"])
        except MailInFlight:
            outcomes.append("in flight")
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(3)]
    with transaction.atomic():
        EmailLog.objects.select_for_update().get()
        for thread in threads:
            thread.start()
        wait_until_blocked(3)  # all three have come as far as they can
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["in flight", "in flight", "sent"]
    assert sandbox_settings.summary("mail")["copies"] == 1


def test_no_database_transaction_is_open_while_the_mail_server_works(sandbox_settings, mocker):
    seen: list[bool] = []
    original = smtplib.SMTP.sendmail

    def spy(self: smtplib.SMTP, *args: object, **kwargs: object) -> object:
        seen.append(connection.in_atomic_block)
        return original(self, *args, **kwargs)  # type: ignore[arg-type]

    mocker.patch.object(smtplib.SMTP, "sendmail", spy)
    send()
    assert seen == [False]


def test_an_accepted_email_is_sent_once_despite_a_database_restart(sandbox_settings, mocker):
    """The database restarts before the email is marked as sent."""
    original = smtplib.SMTP.sendmail

    def taken(self: smtplib.SMTP, *args: object, **kwargs: object) -> object:
        answer = original(self, *args, **kwargs)  # type: ignore[arg-type]
        lose_connection()
        return answer

    mocker.patch.object(smtplib.SMTP, "sendmail", taken)
    assert send()["status"] == "sent"
    assert EmailLog.objects.get().status == "sent"
    assert send()["status"] == "already_sent"
    assert sandbox_settings.summary("mail")["copies"] == 1


def test_a_temporary_refusal_is_retried_and_leaves_no_claim(sandbox_settings: RunningSandbox):
    sandbox_settings.faults(mail={"error_rate": 1})
    with pytest.raises(MailNotSent, match="451"):
        send()
    assert EmailLog.objects.get().lease_until is None
    sandbox_settings.faults()

    assert send()["status"] == "sent"
    assert EmailLog.objects.get().attempts == 2


@pytest.mark.promise(
    "P3", "the answer of the mail server is lost", "one more email with the same `Message-ID`"
)
def test_a_lost_reply_repeats_the_email_under_its_message_id(
    sandbox_settings: RunningSandbox,
):
    """The reply is lost after the server has taken the email."""
    sandbox_settings.faults(mail={"drop_reply_rate": 1})
    with pytest.raises(MailNotSent):
        send()
    assert sandbox_settings.bitten("mail", "drop_reply_rate") == 1
    sandbox_settings.faults()

    send()

    # The window that SMTP leaves: two copies, one Message-ID.
    (mail,) = sandbox_settings.ledger("mail")
    assert mail["copies"] == 2


def test_a_sender_killed_after_its_claim_delays_the_email_one_lease(sandbox_settings):
    """And no longer."""
    EmailLog.claim(
        key="receipt-order-1",
        message_id="<receipt-order-1@holdfast.example>",
        template_name="receipt",
        to="ann@example.com",
        subject="x",
        user_id=None,
    )
    with pytest.raises(MailInFlight):
        send()
    EmailLog.objects.update(lease_until=timezone.now() - timedelta(seconds=1))

    assert send()["status"] == "sent"
    assert sandbox_settings.summary("mail")["copies"] == 1


def test_a_sender_frozen_past_its_lease_takes_nothing_from_its_successor(sandbox_settings):
    key = {"key": "receipt-order-1", "message_id": "<receipt-order-1@holdfast.example>"}
    mail = {"template_name": "receipt", "to": "ann@example.com", "subject": "x", "user_id": None}
    frozen = EmailLog.claim(**key, **mail)
    EmailLog.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    successor = EmailLog.claim(**key, **mail)

    frozen.release(error="woke up")
    assert EmailLog.objects.get().lease_token == successor.lease_token

    frozen.mark_sent()  # but if the server did take its mail, that counts
    assert EmailLog.objects.get().status == "sent"


def test_a_goodbye_that_fails_does_not_make_a_taken_mail_look_lost(sandbox_settings, mocker):
    def interrupted(server: smtplib.SMTP) -> None:
        server.close()
        raise smtplib.SMTPException("no goodbye")

    mocker.patch.object(smtplib.SMTP, "quit", interrupted)
    assert send()["status"] == "sent"
    assert EmailLog.objects.get().status == "sent"


def test_a_mail_server_that_hangs_is_left_after_the_timeout(sandbox_settings, settings):
    settings.EMAIL_TIMEOUT = 0.3
    sandbox_settings.faults(mail={"hang_rate": 1, "hang_ms": 3000})
    with pytest.raises(MailNotSent, match="timed out"):
        send()


def test_no_mail_server_at_all_is_to_be_tried_again(sandbox_settings, settings):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings.EMAIL_PORT = listener.getsockname()[1]
    with pytest.raises(MailNotSent, match="refused"):
        send()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (smtplib.SMTPRecipientsRefused({"a@example.com": (550, b"no such user")}), MailRefused),
        (smtplib.SMTPRecipientsRefused({"a@example.com": (450, b"greylisted")}), MailNotSent),
        (smtplib.SMTPDataError(554, b"spam"), MailRefused),
        (smtplib.SMTPDataError(451, b"later"), MailNotSent),
        # Our own configuration: an operator mends it, and the mail goes out then.
        (smtplib.SMTPAuthenticationError(535, b"wrong password"), MailNotSent),
        (smtplib.SMTPSenderRefused(550, b"not you", "orders@holdfast.example"), MailNotSent),
    ],
)
def test_permanent_and_temporary_refusals_of_the_server_are_told_apart(
    sandbox_settings, mocker, error, expected
):
    mocker.patch.object(smtplib.SMTP, "sendmail", side_effect=error)
    with pytest.raises(expected):
        send()
    assert EmailLog.objects.get().lease_until is None


def test_a_mail_cannot_be_sent_inside_a_transaction(sandbox_settings: RunningSandbox):
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        send()
    assert sandbox_settings.summary("mail")["copies"] == 0
