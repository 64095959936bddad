"""The one HTTP call of this app: POST to an address that a customer chose.

A customer's URL is hostile input, so the call is built from the standard library's parts instead of a client
with conveniences: no redirects (a 302 to http://169.254.169.254/ is the classic way past a URL check), no
proxies or credentials from the environment, no retries, no decompression, one connection a call. The address
is resolved once and the socket is opened to the address that was checked, so a second DNS answer (rebinding)
cannot swap it.

A timeout on a socket restarts with every byte: a receiver that drips one byte every nine seconds would hold a
worker for hours. A watchdog therefore cuts the connection when the whole call has taken
`TOTAL_TIMEOUT_SECONDS`.
"""

import contextlib
import http.client
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

from webhooks.errors import EndpointRefused, EndpointUnreachable

CONNECT_TIMEOUT_SECONDS = 5.0  # A handshake over any healthy path takes well under one.
READ_TIMEOUT_SECONDS = (
    10.0  # Receivers are told to store and answer; one that works before it answers is called again.
)
# Must stay below the claim's lease (webhooks.models), or two senders could overlap.
TOTAL_TIMEOUT_SECONDS = 15.0
# Keeps the unique index on (event_id, endpoint) far below PostgreSQL's 2704 bytes an entry.
MAX_URL_LENGTH = 1024
MAX_BODY_BYTES = 2048  # Of an unsuccessful answer only: enough for the receiver's reason, too little to hurt.
# What `ipaddress` calls global, in one version of Python or another, and where no real receiver lives.
_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        # IPv6 addresses that carry an IPv4 address, which a gateway or the kernel would reach.
        "::/96",  # compatible
        "::ffff:0:0/96",  # mapped
        "::ffff:0:0:0/96",  # translated
        "64:ff9b::/32",  # NAT64
        "2002::/16",  # 6to4
        "2001::/32",  # Teredo
        "fec0::/10",  # site-local, the private networks of IPv6 before fc00::/7
        "192.0.0.0/24",  # protocol assignments, some of them inside of the provider's network
    )
)


@dataclass(frozen=True)
class Response:
    """What came back. `text` is the start of the body, and empty for a 2xx, whose body is not needed."""

    status_code: int
    headers: Mapping[str, str] | Message = field(default_factory=dict)
    text: str = ""


def post(url: str, *, data: bytes, headers: Mapping[str, str]) -> Response:
    """POST `data` to `url` and return the answer, whatever its status.

    Raises EndpointRefused when the URL or its address is not allowed (nothing was sent) and
    EndpointUnreachable when no complete answer came in time (the receiver may have acted all the same).
    """
    parts = check_url(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    cut = threading.Event()
    try:
        with _connect(host, port, tls=parts.scheme == "https") as sock:
            watchdog = threading.Timer(TOTAL_TIMEOUT_SECONDS, _cut, args=(sock, cut))
            watchdog.daemon = True
            watchdog.start()
            try:
                return _exchange(sock, parts, target, data, headers)
            finally:
                watchdog.cancel()
    except (OSError, http.client.HTTPException) as error:
        reason = (
            f"no answer within {TOTAL_TIMEOUT_SECONDS:g} s" if cut.is_set() else str(error) or repr(error)
        )
        raise EndpointUnreachable(
            f"{parts.scheme}://{host}:{port}: {type(error).__name__}: {reason}"
        ) from error


def check_url(url: str) -> SplitResult:
    """The parts of a URL that may be called; raises EndpointRefused, naming what is wrong. Asks no DNS."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise EndpointRefused(f"not a URL: {error}") from None
    if not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
        raise EndpointRefused("a URL is printable ASCII without spaces (encode the rest)")
    if len(url) > MAX_URL_LENGTH:
        raise EndpointRefused(f"the URL is longer than {MAX_URL_LENGTH} characters")
    if parts.scheme != "https" and not (parts.scheme == "http" and _private_allowed()):
        raise EndpointRefused(f"the scheme must be https, not {parts.scheme!r}")
    if not parts.hostname or port == 0:
        raise EndpointRefused("the URL names no host or port to call")
    try:
        # As the resolver does it, which refuses an empty label and one of more than 63 characters.
        parts.hostname.encode("idna")
    except UnicodeError:
        raise EndpointRefused(f"{parts.hostname[:100]!r} is not a host name") from None
    if parts.username is not None or parts.password is not None:
        raise EndpointRefused("the URL must not carry a user name or password")
    return parts


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet, and contains no private one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    # An address is in no network of the other IP version.
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NEVER_PUBLIC)


def _private_allowed() -> bool:
    return bool(getattr(settings, "WEBHOOKS_ALLOW_PRIVATE", False))


def _connect(host: str, port: int, *, tls: bool) -> socket.socket:
    addresses = [info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    # One private address among public ones is an attack, not a receiver: refuse all, try none.
    private = [address for address in addresses if not is_public(str(address))]
    if private and not _private_allowed():
        raise EndpointRefused(f"{host} resolves to {private[0]}, which is not a public address")
    sock = _first_answering(addresses, port)
    if not tls:
        return sock
    try:
        context = _tls_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        return context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


@lru_cache(maxsize=4)
def _tls_context(_cert_file: str | None, _cert_dir: str | None) -> ssl.SSLContext:
    """The certificate authorities that OpenSSL trusts, by the variables that it reads: tens of milliseconds to load."""
    return ssl.create_default_context()


def _first_answering(addresses: list[str | int], port: int) -> socket.socket:
    last: OSError = OSError("the name has no address")
    for address in addresses[:4]:  # The lease must outlast the attempts: four of 5 s, then 15 s.
        try:
            return socket.create_connection((str(address), port), timeout=CONNECT_TIMEOUT_SECONDS)
        except OSError as error:
            last = error
    raise last


def _exchange(
    sock: socket.socket, parts: SplitResult, target: str, data: bytes, headers: Mapping[str, str]
) -> Response:
    sock.settimeout(READ_TIMEOUT_SECONDS)
    connection = http.client.HTTPConnection(
        parts.netloc
    )  # Knows IPv6 in brackets, and makes the Host header.
    connection.auto_open = 0  # Never reconnect: a new connection would resolve the name again, unchecked.
    connection.sock = sock
    connection.request("POST", target, body=data, headers={"Connection": "close", **headers})
    answer = connection.getresponse()
    text = ""
    if not 200 <= answer.status < 300:
        # The status is the answer; a body that is cut short or drips takes nothing from it.
        with contextlib.suppress(OSError, http.client.HTTPException):
            text = answer.read(MAX_BODY_BYTES).decode("utf-8", "replace").replace("\x00", "")
    return Response(answer.status, answer.headers, text)


def _cut(sock: socket.socket, cut: threading.Event) -> None:
    cut.set()
    with contextlib.suppress(OSError):
        # The plain socket's shutdown: SSLSocket's own would change the TLS state under the reading thread.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
