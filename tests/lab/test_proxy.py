"""The fault proxy of the chaos run does to a connection what it says, and no more."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from lab.chaos.proxy import FaultProxy, Route
from lab.chaos.system import through
from tests.support.processes import await_


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that answers what it hears, in capitals."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            while data := peer.recv(1024):
                peer.sendall(data.upper())

    def accept() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()
    server.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
    server.close()


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    made = FaultProxy()
    yield made
    made.close()


Connection = tuple[Route, socket.socket]
Dial = Callable[[int], socket.socket]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Connections that the test need not close."""
    with ExitStack() as opened:
        yield lambda port: opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))


@pytest.fixture
def connection(proxy: FaultProxy, echo: tuple[str, int], dial: Dial) -> tuple[Route, socket.socket]:
    """A route, and a connection through it that works."""
    client = dial(proxy.add("relay", "echo", echo))
    client.sendall(b"hello")
    assert client.recv(100) == b"HELLO"
    return proxy.routes["relay", "echo"], client


def is_cut(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_cut_connection_is_reset_and_the_next_one_works(
    proxy: FaultProxy, connection: Connection, dial: Dial
) -> None:
    route, client = connection
    assert proxy.cut(route) == 1
    assert is_cut(client)
    again = dial(route.port)
    again.sendall(b"again")
    assert again.recv(100) == b"AGAIN"


def test_a_frozen_route_accepts_and_never_answers_until_it_is_healed(
    proxy: FaultProxy, connection: Connection, dial: Dial
) -> None:
    route, old = connection
    route.frozen = True
    new = dial(route.port)
    for client in (old, new):
        client.settimeout(0.2)
        client.sendall(b"anybody?")
        with pytest.raises(TimeoutError):
            client.recv(100)
    assert route.awaiting == 2
    proxy.heal(route)
    old.settimeout(5)
    assert is_cut(old)


def test_a_deaf_route_lets_the_request_act_and_loses_its_answer(
    proxy: FaultProxy, connection: Connection, dial: Dial
) -> None:
    route, client = connection
    route.deaf = True
    client.settimeout(0.2)
    client.sendall(b"act")
    with pytest.raises(TimeoutError):
        client.recv(100)
    proxy.heal(route)
    client.settimeout(5)
    assert is_cut(client)


def test_a_slow_route_keeps_the_bytes_in_order_when_healed(
    proxy: FaultProxy, connection: Connection, dial: Dial
) -> None:
    route, client = connection
    route.delay_s = 0.2
    client.sendall(b"first ")
    await_(lambda: route.awaiting == 1, "the first chunk is under way")
    proxy.heal(route)
    client.sendall(b"second")
    heard = b""
    while len(heard) < 12:
        heard += client.recv(100)
    assert heard == b"FIRST SECOND"


def test_a_refusing_route_resets_who_connects(proxy: FaultProxy, connection: Connection, dial: Dial) -> None:
    route, _ = connection
    route.refusing = True
    assert is_cut(dial(route.port))


def test_a_url_through_the_proxy_keeps_all_but_the_address() -> None:
    url = "postgres://me:p%40ss@db.example:5432/shop?sslmode=require"
    assert through(url, 99) == "postgres://me:p%40ss@127.0.0.1:99/shop?sslmode=require"
