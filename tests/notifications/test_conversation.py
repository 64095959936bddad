"""notifications/conversation.py: emails of one process share a conversation, and none is lost or sent twice by it."""

import os
import smtplib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail.backends.smtp import EmailBackend
from pytest_mock import MockerFixture

from notifications import conversation
from notifications.errors import MailNotSent
from notifications.mailer import send_once
from notifications.models import MAIL_LEASE, EmailLog, RenderedEmail
from tests.lab.sandbox_fixture import RunningSandbox
from tests.support.proxy import Proxy

pytestmark = pytest.mark.django_db(transaction=True)

MAIL = RenderedEmail(subject="Hello", body="Hello.")


def send(number: int) -> str:
    return send_once(key=f"welcome-{number}", to="ann@example.com", mail=MAIL, template_name="x")["status"]


@pytest.fixture
def connects(mocker: MockerFixture, sandbox_settings: RunningSandbox) -> Any:
    """Called once for each connection to the mail server."""
    return mocker.spy(smtplib.SMTP, "connect")


@pytest.fixture
def proxy(connects: Any, sandbox_settings: RunningSandbox, settings: Any) -> Iterator[Proxy]:
    between = Proxy((sandbox_settings.smtp_host, sandbox_settings.smtp_port))
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", between.port
    yield between
    between.close()


def test_emails_of_one_process_share_a_conversation(connects: Any, sandbox_settings: RunningSandbox) -> None:
    assert [send(number) for number in range(3)] == ["sent"] * 3
    assert connects.call_count == 1
    assert [mail["copies"] for mail in sandbox_settings.ledger("mail")] == [1, 1, 1]


def test_a_conversation_that_died_while_idle_is_replaced(
    connects: Any, proxy: Proxy, sandbox_settings: RunningSandbox
) -> None:
    """Every email is sent once."""
    send(1)
    proxy.heal()  # cuts what is connected
    assert send(2) == "sent"
    assert connects.call_count == 2
    assert EmailLog.objects.get(key="welcome-2").attempts == 1
    assert [mail["copies"] for mail in sandbox_settings.ledger("mail")] == [1, 1]


def test_a_server_that_does_not_answer_the_probe_is_connected_to_anew(
    connects: Any,
    mocker: MockerFixture,
    sandbox_settings: RunningSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conversation, "PROBE_TIMEOUT_S", 0.2)
    send(1)
    mocker.patch.object(
        smtplib.SMTP, "rset", smtplib.SMTP.getreply
    )  # waits for an answer, having said nothing
    assert send(2) == "sent"
    assert connects.call_count == 2
    assert [mail["copies"] for mail in sandbox_settings.ledger("mail")] == [1, 1]


def test_a_conversation_ended_in_answer_to_the_probe_is_replaced(
    connects: Any, mocker: MockerFixture, sandbox_settings: RunningSandbox
) -> None:
    send(1)
    mocker.patch.object(smtplib.SMTP, "rset", return_value=(421, b"4.4.2 timeout exceeded"))
    assert send(2) == "sent"
    assert connects.call_count == 2


@pytest.mark.parametrize("heard", [False, True], ids=["before the server hears it", "after"])
def test_a_conversation_cut_during_the_text_is_an_error(
    connects: Any, proxy: Proxy, sandbox_settings: RunningSandbox, heard: bool
) -> None:
    """The email is not sent again here."""
    send(1)
    proxy.cut_at(b"Message-ID", heard=heard)
    with pytest.raises(MailNotSent):
        send(2)
    assert connects.call_count == 1
    assert send(2) == "sent"  # the retry of the message
    assert connects.call_count == 2


@pytest.mark.parametrize("dial", ["error_rate", "drop_reply_rate"])
def test_a_conversation_whose_email_failed_is_not_kept(
    connects: Any, sandbox_settings: RunningSandbox, dial: str
) -> None:
    sandbox_settings.faults(mail={dial: 1})
    with pytest.raises(MailNotSent):
        send(1)
    assert conversation._idle == []
    sandbox_settings.faults()
    assert send(1) == "sent"
    assert connects.call_count == 2


def test_a_conversation_that_a_time_limit_interrupts_is_not_kept(
    connects: Any, mocker: MockerFixture
) -> None:
    send(1)
    rings = mocker.patch.object(smtplib.SMTP, "mail", side_effect=SoftTimeLimitExceeded())
    with pytest.raises(SoftTimeLimitExceeded):
        send(2)
    assert rings.call_count == 1
    assert conversation._idle == []


def test_a_conversation_that_was_idle_for_long_is_not_even_probed(
    connects: Any, mocker: MockerFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = mocker.spy(smtplib.SMTP, "rset")
    send(1)
    monkeypatch.setattr(conversation, "MAX_IDLE_S", 0.0)
    assert send(2) == "sent"
    assert (connects.call_count, probe.call_count) == (2, 0)


def test_a_conversation_under_other_settings_is_not_used(connects: Any, settings: Any) -> None:
    send(1)
    settings.EMAIL_TIMEOUT = 4
    send(2)
    assert connects.call_count == 2


def test_the_timeout_of_the_probe_is_not_that_of_the_email(connects: Any) -> None:
    send(1)
    send(2)
    ((_, backend),) = conversation._idle
    assert backend.connection.sock.gettimeout() == backend.timeout == 10


def test_two_threads_never_share_a_conversation(
    connects: Any, sandbox_settings: RunningSandbox, mocker: MockerFixture
) -> None:
    send(0)
    both = threading.Barrier(2)
    original = EmailBackend.send_messages

    def at_once(backend: EmailBackend, *args: Any) -> Any:
        both.wait(10)
        return original(backend, *args)

    mocker.patch.object(EmailBackend, "send_messages", at_once)
    outcomes: list[str] = []

    def run(number: int) -> None:
        from django.db import connection

        try:
            outcomes.append(send(number))
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["sent", "sent"]
    assert connects.call_count == 2
    assert len(conversation._idle) == 1


def test_a_forked_child_leaves_its_parents_conversation_alone(connects: Any) -> None:
    send(1)
    child = os.fork()
    if not child:
        os._exit(len(conversation._idle))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert send(2) == "sent"
    assert connects.call_count == 1


def test_the_lease_outlasts_a_conversation_whose_every_step_times_out(settings: Any) -> None:
    """With the probe before it."""
    steps = ("connect", "greeting", "EHLO", "MAIL", "RCPT", "DATA", "text")
    longest_s = conversation.PROBE_TIMEOUT_S + len(steps) * settings.EMAIL_TIMEOUT
    assert MAIL_LEASE.total_seconds() > longest_s
