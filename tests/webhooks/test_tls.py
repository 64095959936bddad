"""https means that the receiver proved its name. `localhost.pem` is a self-signed certificate, good until 2120."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.webhooks.conftest import read_request
from webhooks import transport
from webhooks.errors import EndpointUnreachable

CERTIFICATE = str(Path(__file__).with_name("localhost.pem"))


@pytest.fixture
def port() -> Iterator[int]:
    """A TLS server on 127.0.0.1 that says 204."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):  # a client that does not trust us, or the end of the test
                peer, _ = listener.accept()
                with peer, context.wrap_socket(peer, server_side=True) as tls:
                    read_request(tls)
                    tls.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_a_certificate_of_no_known_authority_is_refused(port: int):
    with pytest.raises(EndpointUnreachable, match="certificate verify failed"):
        transport.post(f"https://localhost:{port}/", data=b"{}", headers={})


def test_a_certificate_for_another_name_is_refused(port: int, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", CERTIFICATE)
    with pytest.raises(EndpointUnreachable, match=r"not valid for '127\.0\.0\.1'"):
        transport.post(f"https://127.0.0.1:{port}/", data=b"{}", headers={})


def test_a_trusted_certificate_for_the_name_is_accepted(port: int, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", CERTIFICATE)
    assert transport.post(f"https://localhost:{port}/", data=b"{}", headers={}).status_code == 204


def test_the_certificate_authorities_are_loaded_once_and_again_under_other_variables(monkeypatch, mocker):
    load = mocker.spy(ssl, "create_default_context")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://localhost:{listener.getsockname()[1]}/"
        for file in ("/one.pem", "/one.pem", "/two.pem"):
            monkeypatch.setenv("SSL_CERT_FILE", file)
            hangs_up = threading.Thread(target=lambda: listener.accept()[0].close())
            hangs_up.start()
            with pytest.raises(EndpointUnreachable):
                transport.post(url, data=b"{}", headers={})
            hangs_up.join()
    assert load.call_count == 2
