import socket

import pytest

from tests.lab.sandbox_fixture import RunningSandbox


@pytest.fixture
def hook(sandbox: RunningSandbox) -> str:
    """A merchant's endpoint at the sandbox."""
    return f"{sandbox.url}/merchants/7/webhooks"


def read_request(peer: socket.socket) -> bytes:
    """A whole request whose body is `{}`. Closing with a part unread would reset the connection, answer and all."""
    received = b""
    while not received.endswith(b"{}") and (more := peer.recv(65536)):
        received += more
    return received
