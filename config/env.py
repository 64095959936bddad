"""Every environment variable that Holdfast reads, in one table, with its default and its meaning.

A value comes from the process environment, else from `var/stack.env` (written by the running embedded
stack, so that `manage.py` in a second terminal talks to the same servers), else from the default.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

#: The schemes of what is asked over HTTP.
WEB = ("https", "http")
POSTGRES = ("postgres", "postgresql", "pgsql")
#: Of URLs that may do without a host: a path leads to the server.
SOCKETS = (*POSTGRES, "unix", "redis+socket")
#: Where emails go on this machine.
LOCAL = ("console", "file", "memory", "dummy")
#: A name, an IPv6 address, or none or the directory of a socket.
_HOST = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63})*\.?|.*:.*|(?:/.*)?")
#: Ten years of seconds: dates that lie much further away are more than Python or PostgreSQL can reckon with.
TEN_YEARS_S = 315_360_000
#: More than a machine has of anything that is counted here.
MANY = 1_000_000

BASE_DIR = Path(__file__).resolve().parent.parent
STACK_ENV = BASE_DIR / "var" / "stack.env"


class MissingSetting(SystemExit):
    """A required variable is not set. It ends the process with one line instead of a traceback."""

    def __init__(self, name: str, meaning: str) -> None:
        super().__init__(
            f"{name} is not set ({meaning}). Set it in the environment, or start the embedded stack "
            "with `make up` (or `manage.py stack`), which provides it."
        )


class BadSetting(SystemExit):
    """A variable has a value that cannot be used. It ends the process with one line instead of a traceback."""

    def __init__(self, name: str, wanted: str) -> None:
        super().__init__(f"{name} must be {wanted} ({VARIABLES[name].meaning}).")


class Unusable(ValueError):
    """Raised by a `parse` of `Env.url`, with words for `BadSetting` in which nothing of the URL is shown."""


@dataclass(frozen=True)
class Variable:
    """One row of the table: `default=None` means that the variable is required."""

    default: str | None
    meaning: str


VARIABLES: dict[str, Variable] = {
    "DATABASE_URL": Variable(
        None,
        "PostgreSQL, for example postgres://user:password@host:5432/holdfast; of several servers,"
        " host:5432,other:5432, it uses the one that can be written to",
    ),
    "BROKER_URL": Variable(
        None, "broker: redis://…, amqp://… (RabbitMQ), or sentinel://host:26379/0;sentinel://…"
    ),
    "BROKER_MASTER_NAME": Variable(
        "mymaster", "with sentinel://…: the name of the master that the sentinels watch"
    ),
    "BROKER_CONSUMER_TIMEOUT": Variable(
        "1800", "RabbitMQ's consumer_timeout in seconds; checked against the tasks' time limits"
    ),
    "REDIS_URL": Variable(
        None,
        "Redis for locks, rate limits and the cache: redis://…, or sentinel://host:26379/0;sentinel://…",
    ),
    "REDIS_MASTER_NAME": Variable(
        "mymaster", "with sentinel://… in REDIS_URL: the name of the master that the sentinels watch"
    ),
    "SENTINEL_USERNAME": Variable("", "user of the sentinels themselves"),
    "SENTINEL_PASSWORD": Variable(
        "", "password of the sentinels themselves; that of the servers is in the URL of the first one"
    ),
    "SENTINEL_TLS": Variable("0", "1 for TLS to the sentinels, and to the servers that they name"),
    "SECRET_KEY": Variable(None, "Django's signing key; at least 50 random characters"),
    "DEBUG": Variable("0", "1 shows tracebacks in the browser; never in production"),
    "ALLOWED_HOSTS": Variable("127.0.0.1,localhost", "host names this site answers to, comma separated"),
    "SECURE": Variable("0", "1 behind TLS: secure cookies, HSTS and the redirect to https"),
    "CSRF_TRUSTED_ORIGINS": Variable("", "origins with scheme that may post to the admin, comma separated"),
    "STRIPE_API_BASE": Variable("https://api.stripe.com", "address of the payment gateway"),
    "STRIPE_API_KEY": Variable(None, "secret key of the payment gateway"),
    "STRIPE_WEBHOOK_SECRET": Variable(None, "signing secret of the gateway's events"),
    "EMAIL_URL": Variable(
        "smtp://localhost:25",
        "mail server: smtp://user:password@host:port; submission://… for STARTTLS, smtp://…?ssl=1 for TLS",
    ),
    "DEFAULT_FROM_EMAIL": Variable("orders@holdfast.example", "sender of every mail"),
    "PASSWORD_RESET_URL": Variable(
        "http://127.0.0.1:8000/reset/{uid}/{token}/", "link in password reset mails"
    ),
    "WAREHOUSE_URL": Variable(None, "base address of the warehouse API"),
    "CRM_URL": Variable(None, "base address of the CRM API"),
    "WEBHOOKS_ALLOW_PRIVATE": Variable("0", "1 lets webhooks go to private addresses (the lab does)"),
    "METRICS_TOKEN": Variable(
        "", "Bearer token that /metrics and /alerts.json ask for; empty: they answer everybody"
    ),
    "ALERT_EMAILS": Variable("", "addresses that beat tells which alerts fire and end, comma separated"),
    "ALERT_WEBHOOK_URL": Variable("", "address that the same is posted to as JSON, for example of a chat"),
    "ALERT_REPEAT": Variable("14400", "seconds after which an alert that still fires is told again"),
    "PROXY_COUNT": Variable(
        "0",
        "reverse proxies before the web process that append to X-Forwarded-For; with 0 failed logins are counted by"
        " the address that connects",
    ),
    "RETRY_SCALE": Variable("1.0", "factor on every retry delay; the demo uses a small one"),
    "RETRY_MINIMUM": Variable("0", "least number of retries of every task that retries; the demo raises it"),
    "ORDERS_MAX_BACKLOG": Variable("100000", "open messages above which new orders are answered 503"),
    "ORDERS_PER_SECOND": Variable("1000", "orders a second that one API key may place; above it 429"),
    "WAREHOUSE_PER_SECOND": Variable(
        "50", "calls a second to the warehouse, of all workers together; above it they wait"
    ),
    "OUTBOX_DEPTH_LIMIT": Variable("2000", "messages the relay keeps in one broker queue at the most"),
    "OUTBOX_BATCH": Variable("500", "messages the relay marks and publishes at once"),
    "OUTBOX_RETENTION": Variable("604800", "seconds that settled messages are kept before pruning"),
    "OUTBOX_MARGIN": Variable("5", "seconds after which a published, unstarted message may count as lost"),
    "OUTBOX_WORKER_TIMEOUT": Variable("6", "seconds without a heartbeat after which a worker counts as dead"),
    "OUTBOX_SKEW_GRACE": Variable(
        "3600",
        "seconds for which workers may refuse a message's task or arguments as unknown, while versions run side by side,"
        " before it is a dead letter",
    ),
    "VISIBILITY_TIMEOUT": Variable("900", "seconds after which Redis redelivers an unacknowledged message"),
    "WORKER_PREFETCH": Variable(
        "1",
        "messages that a worker holds for each of its processes (on RabbitMQ: of each queue); more than 1 keeps"
        " processes busy whose tasks take a few milliseconds, and lets a message wait behind a long task while another"
        " worker is idle",
    ),
    "WORKER_REMOTE_CONTROL": Variable(
        "0",
        "1 lets `celery inspect`, `celery control` and Flower speak to the workers; then what may write to the broker can"
        " stop them and revoke what they run",
    ),
    "DATABASE_CONNECTIONS": Variable(
        "0",
        "connections that all processes together may need; checked at start. 0 computes it from the numbers below,"
        " for one of each process of the Procfile",
    ),
    "WEB_WORKERS": Variable("1", "web processes"),
    "WEB_THREADS": Variable("8", "threads of one web process"),
    "CRITICAL_CONCURRENCY": Variable("4", "worker processes of the queue `critical`: payments"),
    "HIGH_CONCURRENCY": Variable("2", "of the queue `high`: mails that somebody waits for"),
    "DEFAULT_CONCURRENCY": Variable("2", "of the queue `default`"),
    "LOW_CONCURRENCY": Variable("1", "of the queue `low`: invoices, reports, imports, pruning"),
    "LOG_LEVEL": Variable("INFO", "level of the application's own log"),
}


def _stack_env() -> dict[str, str]:
    try:
        lines = STACK_ENV.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


class Env:
    """Reads the variables of the table; asking for a name that is not in it is a `KeyError`."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        # With DATABASE_URL set the embedded stack's settings do not count: they would mix the servers of two stacks.
        own = environ is not None or "DATABASE_URL" in os.environ
        self._stack = {} if own else _stack_env()

    def text(self, name: str) -> str:
        row = VARIABLES[name]
        given = (self._environ.get(name, ""), self._stack.get(name, ""))
        value = next((each for each in given if each.strip()), row.default)
        if value is None:
            raise MissingSetting(name, row.meaning)
        return value

    def number(self, name: str, *, least: float | None = None, most: float = TEN_YEARS_S) -> float:
        """A finite number: above 0, or at least `least`; and at most `most`."""
        text = self.text(name)
        wanted = "above 0" if least is None else f"of at least {least:g}"
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not (value > 0 if least is None else value >= least):
            raise BadSetting(name, f"a number {wanted}, not {text!r}")
        if value > most:
            raise BadSetting(name, f"a number of at most {most}, not {text!r}")
        return value

    def integer(self, name: str, *, least: int = 1, most: int = MANY) -> int:
        value = self.number(name, least=least, most=most)
        if not value.is_integer():
            raise BadSetting(name, f"a whole number, not {self.text(name)!r}")
        return int(value)

    def url(self, name: str, *schemes: str, several: bool = False, parse: Callable[[str], Any] = str) -> Any:
        """A URL of one of the schemes, as `parse` reads it.

        Its scheme is in lower case, so that it can be compared.
        The line that refuses it does not show it: there is a password in most.
        """
        urls = [_with_lower_scheme(each) for each in each_url(self.text(name))]
        try:
            for each in urls:
                _refuse_unless_address(each, schemes)
            if not several and len(urls) > 1:
                raise Unusable("one URL, not several")
            return parse(";".join(urls))
        except Unusable as unusable:
            wanted = str(unusable)
        except ValueError:
            wanted = "a URL whose parameters (after the ?) can be read"
        raise BadSetting(name, wanted)

    def origins(self, name: str) -> list[str]:
        """Comma separated addresses of sites: scheme and host, and no path, as a browser sends them."""
        origins = self.items(name)
        for origin in origins:
            if not re.fullmatch(r"https?://([^/?#@:\s]+|\[[\da-f:]+\])(:\d{1,5})?", origin):
                raise BadSetting(name, f"a list of origins such as https://shop.example, not {origin!r}")
        return origins

    def template(self, name: str, *fields: str) -> str:
        """A text for `str.format` with these fields, each at least once, and no others."""
        text = self.text(name)
        values = {field: f"value-of-{field}" for field in fields}
        try:
            filled = text.format(**values)
        except (LookupError, ValueError, AttributeError, TypeError):
            filled = ""
        if not all(value in filled for value in values.values()):
            names = " and ".join(f"{{{field}}}" for field in fields)
            raise BadSetting(name, f"a text with {names}, and with no other fields, not {text!r}")
        return text

    def choice(self, name: str, *choices: str) -> str:
        value = self.text(name)
        if value not in choices:
            raise BadSetting(name, f"one of {', '.join(choices)}, not {value!r}")
        return value

    def flag(self, name: str) -> bool:
        value = self.text(name).lower()
        if value not in {"0", "1", "true", "false", "yes", "no", "on", "off"}:
            raise BadSetting(name, f"0 or 1, not {value!r}")
        return value in {"1", "true", "yes", "on"}

    def items(self, name: str) -> list[str]:
        return [item.strip() for item in self.text(name).split(",") if item.strip()]


def each_url(text: str) -> list[str]:
    """The URLs in `text`: of sentinels, and of brokers that replace each other, there are several."""
    return re.split(r";(?=[A-Za-z+]+://)", text)


def _with_lower_scheme(url: str) -> str:
    scheme, colon, rest = url.strip().partition(":")
    return scheme.lower() + colon + rest


def _refuse_unless_address(url: str, schemes: Collection[str]) -> None:
    """Raises `Unusable` for another scheme, for what is no address, and where a host is missing."""
    scheme, _, rest = url.partition(":")
    if scheme not in schemes:
        raise Unusable(f"a URL that begins with {' or '.join(f'{each}:' for each in schemes)}")
    if scheme in LOCAL:
        return
    try:
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2]
        # libpq alone knows several, each with its port.
        hosts = [urlsplit(f"//{host}") for host in (netloc.split(",") if scheme in POSTGRES else [netloc])]
        readable = all(host.port != 0 for host in hosts) and not parts.fragment and url.isprintable()
    except ValueError:
        readable = False
    if not readable:
        login, at, _ = re.split("[/?#]", rest.removeprefix("//"), maxsplit=1)[0].rpartition("@")
        if "[" in login or (not at and "@" in rest):
            raise Unusable("a URL in whose password %23 stands for #, %2F for /, %3F for ?, and %5B for [")
        raise Unusable(
            "a URL with a port from 1 to 65535, [ ] around an IPv6 address, and no # or control character"
        )
    if not rest.startswith("//") or (scheme not in SOCKETS and not parts.hostname):
        raise Unusable(f"a URL that begins with {scheme}:// and a host")
    if not all(_HOST.fullmatch(unquote(host.hostname or "")) for host in hosts):
        raise Unusable("a URL whose host is a name or an address")
    if scheme in WEB and parts.query:
        raise Unusable("a URL without parameters: paths are added to it")
