"""A TCP proxy between the processes and their servers, to cut, freeze and slow down what one role has with one server.

Each route has a listener of its own, so that a fault can take the database from the relay and from nobody else. What a
kernel would notice (a peer that is gone) it does not imitate: a frozen route keeps its connections established and says
nothing, which is the failure that keepalives do not find.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field

CHUNK = 65_536


@dataclass(eq=False)
class _Link:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    #: A request went to the server and no byte has come back since.
    awaiting: bool = False


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
    links: set[_Link] = field(default_factory=set)

    @property
    def is_calm(self) -> bool:
        return not (self.frozen or self.refusing or self.deaf or self.delay_s)

    @property
    def awaiting(self) -> int:
        """Connections on which a request is under way."""
        return sum(link.awaiting for link in tuple(self.links))


class FaultProxy:
    """Every route, served by one thread. The methods may be called from any thread."""

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], Route] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()

    def add(self, role: str, server: str, target: tuple[str, int]) -> int:
        """Open a route from `role` to `server`; returns the port to connect to."""
        route = Route(role, server, target)
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        route.port = int(listener.getsockname()[1])
        asyncio.run_coroutine_threadsafe(
            asyncio.start_server(lambda reader, writer: self._serve(route, reader, writer), sock=listener),
            self._loop,
        ).result(10)
        self.routes[role, server] = route
        return route.port

    def to(self, server: str) -> list[Route]:
        return [route for route in self.routes.values() if route.server == server]

    def cut(self, route: Route, *, share: float = 1.0, dice: random.Random | None = None) -> int:
        """Reset connections of the route, all or a share of them; returns how many."""
        links = list(route.links)
        if share < 1.0 and dice is not None:
            links = [link for link in links if dice.random() < share] or links[:1]
        self._loop.call_soon_threadsafe(self._reset, links)
        return len(links)

    def heal(self, route: Route) -> None:
        """Forward again. Connections that were frozen or lost answers are reset: their peers have given up on them."""
        broken = route.frozen or route.deaf
        route.frozen = route.refusing = route.deaf = False
        route.delay_s = 0.0
        if broken:
            self.cut(route)

    def close(self) -> None:
        for route in self.routes.values():
            self.cut(route)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    @staticmethod
    def _reset(links: list[_Link]) -> None:
        for link in links:
            for end in (link.client, link.server):
                if end is not None:
                    end.transport.abort()

    async def _serve(self, route: Route, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        route.opened += 1
        link = _Link(writer)
        if route.refusing:
            writer.transport.abort()
            return
        route.links.add(link)
        try:
            while route.frozen:  # accepted, and never answered until the route heals and resets it
                await asyncio.sleep(0.05)
            answers, link.server = await asyncio.open_connection(*route.target)
            await asyncio.gather(
                self._pump(route, link, reader, link.server, asking=True),
                self._pump(route, link, answers, writer, asking=False),
            )
        except OSError:
            pass  # either side is gone; the other learns it below
        finally:
            route.links.discard(link)
            self._reset([link])

    async def _pump(
        self,
        route: Route,
        link: _Link,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        *,
        asking: bool,
    ) -> None:
        while data := await source.read(CHUNK):
            if asking:
                link.awaiting = True
            if route.delay_s:
                await asyncio.sleep(route.delay_s)
            while route.frozen or (route.deaf and not asking):
                await asyncio.sleep(0.05)
            sink.write(data)
            await sink.drain()
            if not asking:
                link.awaiting = False
        with suppress(OSError):
            sink.close()
