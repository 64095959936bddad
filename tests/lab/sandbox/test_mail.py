"""The mail server takes every message, and tells a copy from another message by its Message-ID."""

from __future__ import annotations

import gc
import smtplib
import socket
from contextlib import closing
from email.message import EmailMessage
from pathlib import Path

import pytest

from lab.sandbox.faults import Faults
from lab.sandbox.ledger import Ledger
from lab.sandbox.mail import MailServer
from tests.lab.sandbox_fixture import RunningSandbox


def send(
    sandbox: RunningSandbox, message_id: str = "<receipt-7@x.example>", subject: str = "Receipt"
) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@x.example", "ada@x.example", subject
    if message_id:
        message["Message-ID"] = message_id
    message.set_content("Thank you.")
    with smtplib.SMTP(sandbox.smtp_host, sandbox.smtp_port, timeout=2) as connection:
        connection.send_message(message)


def test_a_message_is_kept_with_its_id_recipient_subject_and_source(sandbox: RunningSandbox) -> None:
    send(sandbox, subject="Ihre Quittung für 7 €")
    [mail] = sandbox.ledger("mail")
    assert mail["message_id"] == "<receipt-7@x.example>"
    assert mail["to"] == ["ada@x.example"]
    assert mail["subject"] == "Ihre Quittung für 7 €"
    assert mail["copies"] == 1
    assert "Thank you." in mail["raw"]


def test_a_copy_of_a_message_is_counted_and_is_no_second_message(sandbox: RunningSandbox) -> None:
    for message_id in ("<a@x.example>", "<a@x.example>", "<b@x.example>"):
        send(sandbox, message_id)
    assert [mail["copies"] for mail in sandbox.ledger("mail")] == [2, 1]
    assert sandbox.summary("mail") == {"count": 2, "copies": 3}


def test_messages_without_an_id_are_messages_of_their_own(sandbox: RunningSandbox) -> None:
    send(sandbox, "")
    send(sandbox, "")
    assert [mail["copies"] for mail in sandbox.ledger("mail")] == [1, 1]


@pytest.mark.parametrize(("dial", "code"), [("error_rate", 451), ("rate_limit_rate", 450)])
def test_a_refused_message_is_a_temporary_failure_and_is_not_kept(
    sandbox: RunningSandbox, dial: str, code: int
) -> None:
    sandbox.faults(mail={dial: 1})
    with pytest.raises(smtplib.SMTPDataError) as refused:
        send(sandbox)
    assert refused.value.smtp_code == code
    assert sandbox.bitten("mail", dial) == 1
    assert sandbox.ledger("mail") == []


def test_a_dropped_reply_keeps_the_message_that_the_sender_believes_lost(sandbox: RunningSandbox) -> None:
    sandbox.faults(mail={"drop_reply_rate": 1})
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        send(sandbox)
    assert sandbox.summary("mail")["copies"] == 1


def test_a_hanging_mail_server_answers_nothing_and_keeps_nothing(sandbox: RunningSandbox) -> None:
    sandbox.faults(mail={"hang_rate": 1})
    with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected)):
        send(sandbox)
    assert sandbox.ledger("mail") == []


def test_a_conversation_that_is_idle_ends_with_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Ledger(tmp_path)) as ledger, socket.create_server(("127.0.0.1", 0)) as listener:
        server = MailServer(listener, ledger, Faults())
        server.start()
        with smtplib.SMTP(*listener.getsockname(), timeout=5) as connection:
            assert connection.noop()[0] == 250
            server.stop()
            assert connection.sock.recv(1) == b""
        del server
        gc.collect()
    assert caplog.records == []
