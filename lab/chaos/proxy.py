"""A TCP proxy between the processes and their servers, to cut, freeze and slow down what one role has with one server.

Each route has a listener of its own, so that a fault can take the database from the relay alone. What a
kernel would notice (a peer that is gone) it does not imitate: a frozen route keeps its connections established and
says nothing, which is the failure that keepalives do not find.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from dataclasses import dataclass, field


@dataclass(eq=False)
class Route:
    """One listener. `delay_s` is added to each chunk in each direction."""

    role: str
    server: str
    target: tuple[str, int]
    port: int = 0
    frozen: bool = False
    refusing: bool = False
    deaf: bool = False  # requests pass, answers do not
    delay_s: float = 0.0
    opened: int = 0
    links: set[Link] = field(default_factory=set)

    @property
    def is_calm(self) -> bool:
        return not (self.frozen or self.refusing or self.deaf or self.delay_s)

    @property
    def awaiting(self) -> int:
        """Connections on which a request is under way."""
        return sum(link.awaiting for link in tuple(self.links))


class Link:
    """One connection through a route: the client's end and the server's. What is held back is lost with it."""

    def __init__(self, route: Route):
        self.route = route
        self.client: asyncio.Transport | None = None
        self.server: asyncio.Transport | None = None
        self.early: list[bytes] = []  # said by the client before the server was connected
        self._due = {
            True: 0.0,
            False: 0.0,
        }  # per direction: when the last chunk that was held back is to be written
        #: A request went to the server and no byte has come back since.
        self.awaiting = False

    def passed(self, data: bytes, *, asking: bool) -> None:
        """Hand on what one end has said, unless the route is not to."""
        route = self.route
        if asking:
            self.awaiting = True
        if route.frozen or (route.deaf and not asking):
            return  # never healed, only reset: see FaultProxy.heal
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not route.delay_s and self._due[asking] <= now:
            self._write(data, asking)
            return
        # Never before what came first, also when the delay ends in between: a stream out of order is no slow stream.
        self._due[asking] = max(now + route.delay_s, self._due[asking] + 0.0001)
        loop.call_at(self._due[asking], self._write, data, asking)

    def _write(self, data: bytes, asking: bool) -> None:
        if not asking:
            self.awaiting = False
        sink = self.server if asking else self.client
        if sink is not None:
            sink.write(data)
        elif asking:
            self.early.append(data)

    def reset(self) -> None:
        for end in (self.client, self.server):
            if end is not None:
                end.abort()
        self.route.links.discard(self)


class _End(asyncio.Protocol):
    def __init__(self, link: Link, *, asking: bool):
        self._link = link
        self._asking = asking

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        link = self._link
        if not self._asking:
            link.server = transport
            transport.writelines(link.early)
            return
        link.client = transport
        link.route.opened += 1
        if link.route.refusing:
            transport.abort()
            return
        link.route.links.add(link)
        if not link.route.frozen:
            self._connecting = asyncio.ensure_future(self._connect())

    def data_received(self, data: bytes) -> None:
        self._link.passed(data, asking=self._asking)

    def connection_lost(self, error: Exception | None) -> None:
        # What was written before is still sent: the last answer before a server closes is an answer.
        other = self._link.client if not self._asking else self._link.server
        if other is not None:
            other.close()
        self._link.route.links.discard(self._link)

    async def _connect(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: _End(self._link, asking=False), *self._link.route.target)
        except OSError:
            self._link.reset()  # the server is down: the client learns it as it would without us


class FaultProxy:
    """Every route, served by one thread. The methods may be called from any thread."""

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], Route] = {}
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()

    def add(self, role: str, server: str, target: tuple[str, int]) -> int:
        """Open a route from `role` to `server`; returns the port to connect to."""
        route = Route(role, server, target)
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        route.port = int(listener.getsockname()[1])
        listening = self._loop.create_server(lambda: _End(Link(route), asking=True), sock=listener)
        self._servers.append(asyncio.run_coroutine_threadsafe(listening, self._loop).result(10))
        self.routes[role, server] = route
        return route.port

    def to(self, server: str) -> list[Route]:
        return [route for route in self.routes.values() if route.server == server]

    def cut(self, route: Route, *, share: float = 1.0, dice: random.Random | None = None) -> int:
        """Reset connections of the route, all or a share of them; returns how many."""
        links = list(route.links)
        if share < 1.0 and dice is not None:
            links = [link for link in links if dice.random() < share] or links[:1]
        for link in links:
            self._loop.call_soon_threadsafe(link.reset)
        return len(links)

    def heal(self, route: Route) -> None:
        """Forward again. Connections that were frozen or lost answers are reset: their streams have holes."""
        broken = route.frozen or route.deaf
        route.frozen = route.refusing = route.deaf = False
        route.delay_s = 0.0
        if broken:
            self.cut(route)

    def close(self) -> None:
        """Reset every connection, listen no more, end the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for route in self.routes.values():
            for link in tuple(route.links):
                link.reset()
        await asyncio.sleep(0.05)  # transports close in the loop's next turns
