"""The HTTP side: keep-alive connections, a router, and the faults that are about the connection itself."""

from __future__ import annotations

import logging
import re
import select
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from lab.sandbox.faults import NO_FAULTS, Faults
from lab.sandbox.ledger import Closed
from lab.sandbox.wire import Answer, Refused, Request, Route, problem

log = logging.getLogger(__name__)

MAX_BODY = 1_000_000
IDLE_S = 120  # a kept connection that says nothing for this long is closed
ELSEWHERE = "/elsewhere"


class Router:
    """Finds the route of a request: the first whose pattern and method fit. `{name...}` fits any rest of a path, the
    method `*` any method.
    """

    def __init__(self, routes: list[Route]) -> None:
        self._routes = [(re.compile(_expression(route.pattern)), route) for route in routes]

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Raises `Refused` with 404, or with 405 and the methods that the path does take."""
        allowed = set()
        for pattern, route in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if route.method in (method, "*"):
                return route, {name: unquote(part) for name, part in match.groupdict().items()}
            allowed.add(route.method)
        if allowed:
            answer = problem(405, f"{path} does not take {method}")
            answer.headers["Allow"] = ", ".join(sorted(allowed))
            raise Refused(answer)
        raise Refused(problem(404, f"nothing here: {method} {path}; GET / lists what there is"))


def _expression(pattern: str) -> str:
    rest = re.sub(r"{(\w+)\.\.\.}", r"(?P<\1>.*)", pattern)
    return re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", rest)


class SandboxHTTPServer(ThreadingHTTPServer):
    """A thread a connection. The dials of a route's service are drawn once for each of its requests."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256  # a worker fleet that starts at once connects at once

    def __init__(self, address: tuple[str, int], faults: Faults) -> None:
        super().__init__(address, _Connection)
        self.faults = faults
        self.stopping = threading.Event()
        self.router = Router([])

    def server_bind(self) -> None:
        # The base class would look up the host's name here, which takes seconds where there is no resolver.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("connection from %s ended badly", client_address, exc_info=True)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sandbox"
    sys_version = ""
    timeout = IDLE_S
    disable_nagle_algorithm = True
    server: SandboxHTTPServer

    def handle_any(self) -> None:
        try:
            body = self._body()
            path, _, query = self.path.partition("?")
            route, place = self.server.router.find(self.command, path)
        except Refused as refused:
            self._send(refused.answer)
            return
        plan = self.server.faults.plan(route.service.name) if route.service else NO_FAULTS
        request = Request(self.command, path, query, self.headers, body, place, plan)
        if plan.hang_s:
            self._hang(plan.hang_s)
            return
        try:
            answer = self._refused_by_fault(route, request) or route.handler(request)
        except Refused as refused:
            answer = refused.answer
        except Closed:  # the sandbox is stopping, and has not done what was asked
            self.close_connection = True
            return
        except Exception:
            log.exception("%s %s failed", self.command, path)
            refusal = route.service.refusal if route.service else problem
            answer = refusal(500, "the sandbox itself failed; its log has the traceback")
        if plan.drop_reply:
            self.close_connection = True
            return
        if plan.wrong_json:
            answer = Answer(200, b'{"id": "' + answer.body[: len(answer.body) // 2], answer.headers)
        self._send(answer, drip_s=plan.slow_drip_s)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_any

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            raise Refused(problem(411, "send a Content-Length"))
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY:
            self.close_connection = True
            raise Refused(problem(413, f"the body must have between 0 and {MAX_BODY} bytes"))
        return self.rfile.read(length) if length else b""

    def _refused_by_fault(self, route: Route, request: Request) -> Answer | None:
        plan, service = request.plan, route.service
        if service is None:
            return None
        if plan.rate_limit:
            answer = service.refusal(429, "Too many requests, try again later.")
            answer.headers["Retry-After"] = f"{plan.retry_after:g}"
            return answer
        if plan.redirect:
            return Answer(302, b"", {"Location": ELSEWHERE})
        if plan.error:
            return service.refusal(
                service.error_status, f"The {service.name} is out of order; nothing was done."
            )
        return None

    def _hang(self, for_s: float) -> None:
        """Say nothing until the client gives up or the time is over, then close."""
        self.close_connection = True
        client = select.poll()
        client.register(self.connection, select.POLLIN)
        end = time.monotonic() + for_s
        while time.monotonic() < end and not self.server.stopping.is_set():
            if client.poll(200):  # closed, since a client that waits for an answer sends nothing more
                return

    def _send(self, answer: Answer, *, drip_s: float = 0.0) -> None:
        headers = {
            "Server": self.server_version,
            "Date": self.date_time_string(),
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            "Connection": "close" if self.close_connection else "keep-alive",
        } | answer.headers
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        body = b"" if self.command == "HEAD" else answer.body
        if not drip_s:
            # One write for head and body: two would cost a packet, a system call and a wake-up of the client.
            self.wfile.write(head + body)
            return
        self.wfile.write(head)
        for index in range(len(body)):
            if self.server.stopping.wait(drip_s / len(body)):
                break
            self.wfile.write(body[index : index + 1])

    def log_message(self, format: str, *args: Any) -> None:
        """No access log: it would hide the output of the other processes, and the ledger is the record."""


def control_routes(faults: Faults) -> list[Route]:
    """The dials, and the page to which the redirect fault sends a client."""

    def turn(request: Request) -> Answer:
        try:
            faults.set(request.json_object())
        except ValueError as error:
            raise Refused(problem(400, str(error), str(error).partition(":")[0])) from None
        return Answer.of(200, faults.shown())

    def elsewhere(request: Request) -> Answer:
        return Answer(
            200, b"<!doctype html><title>Elsewhere</title><p>Not the service.", content_type="text/html"
        )

    return [
        Route("PUT", "/faults", turn),
        Route("GET", "/faults", lambda request: Answer.of(200, faults.shown())),
        Route("GET", "/faults/bitten", lambda request: Answer.of(200, faults.bitten())),
        *(Route(method, ELSEWHERE, elsewhere) for method in ("GET", "POST")),
    ]
