"""The mail server: takes every message, and keeps each copy that it takes."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from email import message_from_bytes, policy

from aiosmtpd.smtp import SMTP, Envelope, Session

from lab.sandbox.faults import Faults
from lab.sandbox.ledger import Ledger

logging.getLogger("mail.log").setLevel(logging.ERROR)  # aiosmtpd's: a client that goes away is not our news


class _Inbox:
    """aiosmtpd's handler."""

    def __init__(self, ledger: Ledger, faults: Faults) -> None:
        self._ledger = ledger
        self._faults = faults

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        plan = self._faults.plan("mail")
        await asyncio.sleep(plan.latency_s)
        if plan.hang_s:
            await asyncio.sleep(plan.hang_s)
            _hang_up(server)
            return "421 4.3.2 closing"
        if plan.rate_limit:
            return "450 4.2.1 too many messages, try again later"
        if plan.error:
            return "451 4.3.0 temporary failure, not taken"
        await asyncio.to_thread(self._take, envelope)
        if plan.drop_reply:
            _hang_up(server)
        return "250 2.0.0 taken"

    def _take(self, envelope: Envelope) -> None:
        raw = envelope.original_content or b""
        message = message_from_bytes(raw, policy=policy.default)
        with self._ledger.transaction() as db:
            db.execute(
                "INSERT INTO mail (message_id, recipients, subject, raw, received) VALUES (?, ?, ?, ?, ?)",
                (
                    str(message.get("Message-ID", "")).strip(),
                    json.dumps(envelope.rcpt_tos),
                    str(message.get("Subject", "")),
                    raw,
                    time.time(),
                ),
            )


def _hang_up(server: SMTP) -> None:
    transport = server.transport
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


class MailServer:
    """SMTP on an already bound socket, in a thread with its own event loop."""

    def __init__(self, listener: socket.socket, ledger: Ledger, faults: Faults) -> None:
        self._listener = listener
        self._inbox = _Inbox(ledger, faults)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="mail", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more mail, and end the conversations, idle ones too; waits for the loop to end."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        # The hostname is given since aiosmtpd would otherwise look up this machine's name, which may take
        # seconds.
        self._loop.run_until_complete(
            self._loop.create_server(
                lambda: SMTP(
                    self._inbox, hostname="sandbox.holdfast.example", enable_SMTPUTF8=True, loop=self._loop
                ),
                sock=self._listener,
            )
        )
        self._loop.run_forever()
        conversations = asyncio.all_tasks(self._loop)
        for each in conversations:
            each.cancel()
        self._loop.run_until_complete(asyncio.gather(*conversations, return_exceptions=True))
        self._loop.close()
