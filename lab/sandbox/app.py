"""The sandbox as one object: every service on one ledger and one set of dials."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from lab.sandbox import events
from lab.sandbox.crm import CustomerRecords
from lab.sandbox.events import EventPosters
from lab.sandbox.faults import Faults
from lab.sandbox.gateway import Gateway
from lab.sandbox.ledger import Ledger
from lab.sandbox.mail import MailServer
from lab.sandbox.merchants import Merchants
from lab.sandbox.server import Router, SandboxHTTPServer, control_routes
from lab.sandbox.statements import Statements
from lab.sandbox.warehouse import Warehouse
from lab.sandbox.wire import Answer, Refused, Request, Route, problem


class Sandbox:
    """Binds at once, serves from `start()` to `stop()`. Raises `OSError` when the HTTP address is taken."""

    def __init__(
        self,
        *,
        http: tuple[str, int],
        mail_listener: socket.socket,
        directory: Path,
        app_url: str,
        webhook_secret: str,
        keys_ttl_s: float,
    ) -> None:
        self._faults = Faults()
        self._http = SandboxHTTPServer(http, self._faults)
        self._ledger = Ledger(directory)
        self._app_url = app_url
        self._posters = EventPosters(self._ledger, self._faults, app_url=app_url, secret=webhook_secret)
        self._mail = MailServer(mail_listener, self._ledger, self._faults)
        host, port = _reachable(self._http.socket)
        self.url = f"http://{host}:{port}"
        self.smtp = _reachable(mail_listener)
        routes = [
            *Gateway(self._ledger, self._posters, keys_ttl_s=keys_ttl_s).routes(),
            *Warehouse(self._ledger).routes(),
            *CustomerRecords(self._ledger).routes(),
            *Merchants(self._ledger).routes(),
            *Statements(self._ledger).routes(),
            *control_routes(self._faults),
            Route("GET", "/events/target", lambda request: Answer.of(200, {"url": self._posters.app_url})),
            Route("PUT", "/events/target", self._aim_events),
            Route("DELETE", "/ledger", self._erase),
            Route("PUT", "/ledger/snapshot", self._keep),
            Route("PUT", "/ledger", self._put_back),
            Route("GET", "/healthz", self._health),
        ]
        index = [f"{route.method} {route.pattern}" for route in routes]
        self._http.router = Router(
            [*routes, Route("GET", "/", lambda request: Answer.of(200, {"endpoints": index}))]
        )

    def start(self) -> None:
        """Serve from threads of its own; returns at once."""
        threading.Thread(target=self._http.serve_forever, args=(0.1,), name="http", daemon=True).start()
        self._mail.start()
        self._posters.start()

    def stop(self) -> None:
        """Take no more requests, end what hangs or drips, and close the ledger between two transactions."""
        self._http.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._mail.stop()
        self._posters.stop()
        self._ledger.close()

    def _aim_events(self, request: Request) -> Answer:
        url = request.json_object().get("url")
        if not isinstance(url, str) or (url and not url.startswith(("http://", "https://"))):
            raise Refused(problem(422, "an http(s) address, or '' for none", "url"))
        self._posters.app_url = url
        self._posters.wake()
        return Answer.of(200, {"url": url})

    def _erase(self, request: Request) -> Answer:
        """Forgets what happened, idempotency keys and merchants' secrets too; the dials stay as they are."""
        self._posters.app_url = self._app_url
        self._ledger.erase()
        return Answer.of(200, {"erased": True})

    def _keep(self, request: Request) -> Answer:
        self._ledger.keep()
        return Answer.of(200, {"kept": True})

    def _put_back(self, request: Request) -> Answer:
        """What happened since the snapshot did not happen; merchants' secrets are of the ledger, dials are not."""
        if not self._ledger.put_back():
            raise Refused(problem(409, "no snapshot was taken (PUT /ledger/snapshot)"))
        self._posters.app_url = self._app_url
        return Answer.of(200, {"put_back": True})

    def _health(self, request: Request) -> Answer:
        return Answer.of(
            200,
            {
                "status": "ok",
                "url": self.url,
                "smtp": {"host": self.smtp[0], "port": self.smtp[1]},
                "events_due": events.due(self._ledger),
                "pid": os.getpid(),
            },
        )


def _reachable(listener: socket.socket) -> tuple[str, int]:
    """Where a client on this machine finds the listener; one on every address is on 127.0.0.1 too."""
    host, port = listener.getsockname()[:2]
    return ("127.0.0.1" if host == "0.0.0.0" else host), port
