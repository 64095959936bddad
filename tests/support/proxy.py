"""A TCP proxy in front of a server, with which a test takes the server away from one process and no other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: PostgreSQL's last word of a handshake, and of every answer outside of a transaction.
_READY_FOR_QUERY = b"Z\x00\x00\x00\x05I"


class Proxy:
    """Forwards to `target`, until told to cut what connects, or to accept it and never answer."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._mode = "pass"
        self._server = socket.create_server(("127.0.0.1", 0))
        self._links: list[tuple[socket.socket, socket.socket]] = []
        self._held: list[socket.socket] = []
        self._allowance: int | None = None
        self._fatal: bytes | None = None
        self._doomed: bytes | None = None
        self._doomed_is_heard = False
        self._sentenced: set[socket.socket] = set()
        self.attempts = 0
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    def refuse(self) -> None:
        """Cut every connection, and each new one at once."""
        self._mode = "refuse"
        self._cut()

    def freeze(self) -> None:
        """Cut every connection, accept new ones and never answer."""
        self._mode = "freeze"
        self._cut()

    def mute(self) -> None:
        """Cut every connection, let new ones shake hands with PostgreSQL, and then never answer."""
        self._mode = "mute"
        self._cut()

    def stall(self, *, after_bytes: int) -> None:
        """Forward this much more of the server's answers, then nothing; the connections stay open."""
        self._allowance = after_bytes

    def stall_after(self, request: bytes) -> None:
        """Forward everything, until a request with these bytes: to it and to what follows there is no answer."""
        self._fatal = request

    def cut_at(self, request: bytes, *, heard: bool) -> None:
        """Cut the next connection on which the client says this: before the server hears it, or else its answer."""
        self._doomed_is_heard, self._doomed = heard, request

    def heal(self) -> None:
        """Forward again."""
        self._mode, self._allowance, self._fatal = "pass", None, None
        self._cut()

    def close(self) -> None:
        self._server.close()
        self._cut()

    def _cut(self) -> None:
        for pair in self._links:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._links.clear()
        for end in self._held:
            end.close()
        self._held.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.attempts += 1
            if self._mode == "refuse":
                client.close()
            elif self._mode == "freeze":
                self._held.append(client)
            else:
                server = socket.create_connection(self._target)
                self._links.append((client, server))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        muted = False
        with suppress(OSError):
            while data := source.recv(65536):
                if muted:
                    continue
                muted = self._mode == "mute" and data.endswith(_READY_FOR_QUERY)
                if self._fatal and self._fatal in data:
                    self._allowance = 0
                if self._allowance is not None and (source, sink) not in self._links:
                    # `_links` holds (client, server): this is an answer.
                    data = data[: self._allowance]
                    self._allowance -= len(data)
                if source in self._sentenced:
                    self.cuts += 1
                    break
                if self._doomed is not None and self._doomed in data:
                    self._doomed = None
                    if not self._doomed_is_heard:
                        self.cuts += 1
                        break
                    self._sentenced.add(sink)
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(host: str, port: int) -> Iterator[Proxy]:
    proxy = Proxy((host, port))
    try:
        yield proxy
    finally:
        proxy.close()
