"""Checks at start whether each server's client can use its URL, which the client itself would find out later.

For `Env.url(parse=…)`; each raises `Unusable` with what the URL would have to be, and never shows the URL.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit, urlunsplit

import dj_database_url
import dj_email_url
import psycopg2
import redis
from kombu import Connection
from psycopg2.extensions import make_dsn

from config.env import Unusable, each_url
from resilience.sentinel import SentinelPool

#: PostgreSQL's limit, and so Django's.
MAX_NAME_CHARS = 63
#: Those of OPTIONS in DATABASES that Django takes out before it hands the others on to libpq.
DJANGOS_OPTIONS = {"assume_role", "isolation_level", "server_side_binding"}


def database(url: str) -> dict[str, Any]:
    """The entry of `DATABASES`: what Django and libpq both understand."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    several = [urlsplit(f"//{host}") for host in hosts.split(",")] if "," in hosts else []
    if several:
        url = urlunsplit(parts._replace(netloc=login + at))
    config: dict[str, Any] = dict(dj_database_url.parse(url, conn_max_age=600, conn_health_checks=True))
    config.setdefault("OPTIONS", {})
    if several:
        if not all(each.hostname for each in several):
            raise Unusable("a URL with a host before and after each comma")
        config["HOST"] = ",".join(unquote(each.hostname or "") for each in several)
        config["PORT"] = ",".join(str(each.port or "") for each in several)
        # libpq would stay with the first that answers, which after a failover takes no writes.
        config["OPTIONS"].setdefault("target_session_attrs", "read-write")
    options = {name: value for name, value in config["OPTIONS"].items() if name not in DJANGOS_OPTIONS}
    if not (config["NAME"] or options.get("service")) or len(config["NAME"]) > MAX_NAME_CHARS:
        raise Unusable(f"a URL that names a database, in at most {MAX_NAME_CHARS} characters")
    try:
        make_dsn(**options)
        # It reads the values before it looks for the server, of which there is none here.
        psycopg2.connect(**{**options, "service": None, "host": os.devnull})
    except psycopg2.Error as error:
        if not isinstance(error, psycopg2.OperationalError) or str(error).startswith("invalid "):
            raise Unusable("a URL whose parameters (after the ?) PostgreSQL's client knows") from None
    return config


def broker(urls: str) -> str:
    """One URL or several, that kombu can read."""
    try:
        Connection(urls)
    except Exception:  # It hands the URL's parameters on to functions that may not have them.
        raise Unusable("a URL, or several with a ; between, that kombu can read") from None
    parsed = [urlsplit(url) for url in each_url(urls)]
    if len({parts.scheme for parts in parsed}) > 1:
        raise Unusable("a URL, or several of one scheme with a ; between")
    for parts in parsed:
        _refuse_unless_socket(parts)
        if parts.scheme in ("redis", "rediss", "sentinel"):
            _refuse_unless_number(parts.path)
        elif parts.scheme == "redis+socket":
            _refuse_unless_number(*parse_qs(parts.query).get("virtual_host", []))
    return urls


def store(url: str) -> str:
    """The URL of one Redis that redis-py can read, or those of the sentinels that watch it."""
    urls = each_url(url)
    sentinels = [each for each in urls if each.startswith("sentinel:")]
    if len(urls) > 1 and sentinels != urls:
        raise Unusable("the URL of one server, or those of its sentinels with a ; between")
    for parts in map(urlsplit, urls):
        _refuse_unless_socket(parts)
        if parts.scheme != "unix":
            _refuse_unless_number(parts.path)
    try:
        if sentinels:
            pool: redis.ConnectionPool = SentinelPool.from_url(url, master_name="any")
        else:
            pool = redis.ConnectionPool.from_url(url)
        pool.make_connection()  # which connects when it is used
    except (ValueError, TypeError, redis.RedisError):
        raise Unusable("a URL whose parameters (after the ?) redis-py can read") from None
    return url


def email(url: str) -> dict[str, Any]:
    """The EMAIL_ settings. dj_email_url ignores a misspelt ssl=1, and the password would be sent in clear text."""
    query = parse_qs(urlsplit(url).query, keep_blank_values=True)
    flags = [*query.get("ssl", []), *query.get("tls", [])]
    if not query.keys() <= {"ssl", "tls", "timeout", "_server_email", "_default_from_email"} or not all(
        flag in (*dj_email_url.TRUTHY, "0", "false", "no", "off") for flag in flags
    ):
        raise Unusable("a URL with no other parameters than ssl=1 or tls=1, and timeout")
    return dict(dj_email_url.parse(url))


def _refuse_unless_socket(parts: SplitResult) -> None:
    if parts.scheme in ("unix", "redis+socket") and not parts.path.strip("/"):
        raise Unusable(f"a URL with the path of a socket, such as {parts.scheme}:///run/redis.sock")


def _refuse_unless_number(*paths: str) -> None:
    """Where Redis' databases are numbered, kombu raises at the first connection and redis-py takes database 0."""
    if not all(path.strip("/").isdecimal() for path in paths if path.strip("/")):
        raise Unusable("a URL whose path is the number of a database, or several with a ; between")
