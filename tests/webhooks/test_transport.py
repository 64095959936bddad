"""The one HTTP call: it connects where it may, ends when it must, and follows no redirect."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab.sandbox_fixture import RunningSandbox
from tests.webhooks.conftest import read_request
from webhooks import transport
from webhooks.errors import EndpointRefused, EndpointUnreachable


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start a server that answers every connection with raw bytes; returns its URL."""
    with contextlib.ExitStack() as stack:

        def start(answer: Callable[[socket.socket], None]) -> str:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def run() -> None:
                with contextlib.suppress(OSError):  # the listener is closed at the end of the test
                    while True:
                        peer, _ = listener.accept()
                        with peer, contextlib.suppress(OSError):
                            read_request(peer)
                            answer(peer)

            threading.Thread(target=run, daemon=True).start()
            return f"http://127.0.0.1:{listener.getsockname()[1]}/"

        yield start


def post(url: str) -> transport.Response:
    return transport.post(url, data=b"{}", headers={})


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:8.8.8.8",
        "2002:7f00:1::1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "::7f00:1",
        "::ffff:0:7f00:1",
        "fec0::1",
        "feff::1",
        "192.0.0.8",
        "192.0.0.170",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
def test_an_address_that_is_not_public_is_recognised_in_every_disguise(address):
    assert not transport.is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1"])
def test_public_addresses_are_public(address):
    assert transport.is_public(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "169.254.169.254", "0", "127.1"]
)
def test_a_private_address_is_refused_before_a_byte_is_sent(settings, host):
    settings.WEBHOOKS_ALLOW_PRIVATE = False
    with pytest.raises(EndpointRefused, match="not a public address"):
        post(f"https://{host}/")


def test_a_name_with_one_private_address_among_public_ones_is_refused(settings, mocker):
    settings.WEBHOOKS_ALLOW_PRIVATE = False
    answers = [(2, 1, 6, "", ("93.184.216.34", 443)), (2, 1, 6, "", ("10.0.0.1", 443))]
    mocker.patch("socket.getaddrinfo", return_value=answers)
    connect = mocker.patch("socket.create_connection")
    with pytest.raises(EndpointRefused, match=r"10\.0\.0\.1"):
        post("https://example.com/")
    connect.assert_not_called()


def test_the_connection_goes_to_the_address_that_was_checked(settings, mocker):
    """The name is not resolved again."""
    settings.WEBHOOKS_ALLOW_PRIVATE = False
    resolve = mocker.patch("socket.getaddrinfo", return_value=[(2, 1, 6, "", ("93.184.216.34", 443))])
    connect = mocker.patch("socket.create_connection", side_effect=ConnectionRefusedError("refused"))
    with pytest.raises(EndpointUnreachable):
        post("https://example.com/")
    assert resolve.call_count == 1
    assert connect.call_args.args[0] == ("93.184.216.34", 443)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://example.com/", "scheme"),
        ("https://", "no host"),
        ("https://example.com:0/", "no host"),
        ("https://a..b/", "not a host name"),
        ("https://.example.com/", "not a host name"),
        (f"https://{'a' * 64}.com/", "not a host name"),
        ("https://user:secret@example.com/", "user name"),
        ("https://example.com:99999/", "not a URL"),
        ("https://exa mple.com/", "ASCII"),
        ("https://example.com/\r\nX-Admin: 1", "ASCII"),
        ("https://exämple.com/", "ASCII"),
        ("https://example.com/" + "x" * 1024, "longer"),
    ],
)
def test_a_url_that_is_not_plain_https_is_refused_with_the_reason(settings, url, reason):
    settings.WEBHOOKS_ALLOW_PRIVATE = False
    with pytest.raises(EndpointRefused, match=reason):
        transport.check_url(url)


@pytest.mark.parametrize(
    "host", [f"{'a' * 63}.com", "example.com.", "xn--bcher-kva.example", "[2606:2800:220:1::1]"]
)
def test_a_host_that_a_resolver_can_be_asked_for_is_taken(host):
    assert transport.check_url(f"https://{host}/").hostname == host.strip("[]")


def test_plain_http_is_for_the_lab_only(settings):
    settings.WEBHOOKS_ALLOW_PRIVATE = True
    assert transport.check_url("http://127.0.0.1:8000/x").port == 8000


def test_a_redirect_is_an_answer_and_is_not_followed(sandbox: RunningSandbox):
    sandbox.faults(merchants={"redirect_rate": 1})
    answer = transport.post(
        f"{sandbox.url}/merchants/7/webhooks", data=b"{}", headers={"webhook-id": "evt_1"}
    )
    assert answer.status_code == 302
    assert sandbox.ledger("webhooks") == []


@pytest.mark.parametrize(
    ("url", "line", "host"),
    [
        ("http://hooks.example/a/b?c=d", "POST /a/b?c=d HTTP/1.1", "hooks.example"),
        ("http://hooks.example:8080", "POST / HTTP/1.1", "hooks.example:8080"),
        ("http://[2606:2800:220:1::1]/", "POST / HTTP/1.1", "[2606:2800:220:1::1]"),
        ("http://[2606:2800:220:1::1]:8080/", "POST / HTTP/1.1", "[2606:2800:220:1::1]:8080"),
    ],
)
def test_the_request_is_the_one_that_was_asked_for(mocker, url, line, host):
    ours, theirs = socket.socketpair()
    mocker.patch("socket.getaddrinfo", return_value=[(2, 1, 6, "", ("93.184.216.34", 80))])
    mocker.patch("socket.create_connection", return_value=ours)
    with theirs:
        theirs.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        response = transport.post(url, data=b"{}", headers={"X-One": "1"})
        received = b"".join(iter(lambda: theirs.recv(65536), b"")).decode()

    lines = received.split("\r\n")
    assert (response.status_code, lines[0], lines[-1]) == (204, line, "{}")
    assert {f"Host: {host}", "X-One: 1", "Content-Length: 2"} <= set(lines)


def test_a_slow_drip_ends_at_the_total_timeout(monkeypatch, serve):
    monkeypatch.setattr(transport, "TOTAL_TIMEOUT_SECONDS", 0.5)

    def drip(peer: socket.socket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000:
            peer.sendall(bytes([byte]))
            time.sleep(0.05)  # every byte restarts the socket's own timeout

    started = time.monotonic()
    with pytest.raises(EndpointUnreachable, match=r"no answer within 0\.5 s"):
        post(serve(drip))
    assert time.monotonic() - started < 3


def test_a_body_without_end_does_not_delay_a_2xx(serve):
    def endless(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            peer.sendall(b"x" * 65536)

    answer = post(serve(endless))
    assert (answer.status_code, answer.text) == (200, "")


def test_of_an_error_only_the_start_of_the_body_is_read(serve):
    def endless(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 500 Oops\r\n\r\n")
        while True:
            peer.sendall(b"x" * 65536)

    assert post(serve(endless)).text == "x" * transport.MAX_BODY_BYTES


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x00\x01\x02\r\n\r\n", b"HTTP/1.1 banana\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200],
)
def test_an_answer_that_is_not_http_is_a_delivery_error(serve, garbage):
    with pytest.raises(EndpointUnreachable):
        post(serve(lambda peer: peer.sendall(garbage)))


def test_a_closed_port_and_an_unknown_name_are_delivery_errors(mocker):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EndpointUnreachable, match="refused"):
        post(f"http://127.0.0.1:{port}/")
    mocker.patch("socket.getaddrinfo", side_effect=socket.gaierror(-2, "Name or service not known"))
    with pytest.raises(EndpointUnreachable, match="not known"):
        post("https://nowhere.example/")


def test_proxies_and_credentials_of_the_environment_are_not_used(monkeypatch, serve):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert post(serve(lambda peer: peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n"))).status_code == 200
