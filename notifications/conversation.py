"""The conversation with the mail server, kept from one email of a process to the next.

To connect, be greeted and say EHLO (where it is asked for: TLS and a login) costs more than to hand over an email. Only a
conversation whose last email was taken is kept: after anything else nothing is known of its state. It is never used by two
threads, nor by a forked child, which would read its parent's answers.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

from django.core.mail import get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend

#: Seconds after which an idle conversation is not used again: servers end a connection after some minutes, and a
#: firewall that has dropped it discards our bytes silently.
MAX_IDLE_S = 30.0
#: Seconds for the answer to RSET, before an idle conversation is used again: a server that takes longer gets a new
#: connection. They come on top of a whole conversation (`notifications.models.MAIL_LEASE`).
PROBE_TIMEOUT_S = 2.0

#: What tells two backends of Django apart: one that was opened under other settings is not used.
_SETTINGS = (
    "host",
    "port",
    "username",
    "password",
    "use_tls",
    "use_ssl",
    "ssl_certfile",
    "ssl_keyfile",
    "timeout",
)
#: Idle since when, in a list so that taking it is one atomic step; at most one.
_idle: list[tuple[float, EmailBackend]] = []


@contextlib.contextmanager
def conversation() -> Iterator[BaseEmailBackend]:
    """An open connection of Django's email backend: the idle one, or a new one. It is kept if the block ends well.

    Raises OSError (which SMTPException is) when there is no server. Of two backends only that of SMTP is kept.
    """
    backend = get_connection()
    backend = _idle_like(backend) or backend
    try:
        backend.open()  # does nothing to one that is open
        yield backend
    except BaseException:
        _end(backend)
        raise
    if isinstance(backend, EmailBackend) and not _idle:
        _idle.append((time.monotonic(), backend))
    else:
        _end(backend)


def drop_idle() -> None:
    """Close the idle conversation without a word to the server."""
    while _idle:
        _close(_idle.pop()[1])


def _idle_like(wanted: BaseEmailBackend) -> EmailBackend | None:
    """The idle conversation, if it is under the settings of `wanted` and the server still answers."""
    try:
        since, backend = _idle.pop()
    except IndexError:
        return None
    alike = all(getattr(wanted, name, None) == getattr(backend, name) for name in _SETTINGS)
    if alike and time.monotonic() - since < MAX_IDLE_S and _answers(backend):
        return backend
    _close(backend)
    return None


def _answers(backend: EmailBackend) -> bool:
    """Whether RSET is answered as it should be. No email is under way, so that nothing is lost or repeated if it is not."""
    server: Any = backend.connection
    try:
        server.sock.settimeout(PROBE_TIMEOUT_S)
        code, _ = server.rset()
        server.sock.settimeout(backend.timeout)
    except OSError:
        return False
    return bool(code == 250)


def _end(backend: BaseEmailBackend) -> None:
    with contextlib.suppress(OSError):  # a QUIT that fails says nothing about the email
        backend.close()


def _close(backend: EmailBackend) -> None:
    if backend.connection is not None:
        backend.connection.close()
        backend.connection = None


# Not QUIT: that would end the parent's conversation.
os.register_at_fork(after_in_child=drop_idle)
