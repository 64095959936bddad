"""Reads the environment variables of `config.variables`, strictly: an unusable value ends the process with one line.

A value comes from the process environment, else from `var/stack.env` (written by the running embedded
stack, so that `manage.py` in a second terminal talks to the same servers), else from the default.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from config.variables import VARIABLES

#: The schemes of what is asked over HTTP.
WEB = ("https", "http")
POSTGRES = ("postgres", "postgresql", "pgsql")
#: Of URLs that may do without a host: a path leads to the server.
SOCKETS = (*POSTGRES, "unix", "redis+socket")
#: Where emails go on this machine.
LOCAL = ("console", "file", "memory", "dummy")
#: A name, an IPv6 address, or none or the directory of a socket.
_HOST = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63})*\.?|.*:.*|(?:/.*)?")
#: Ten years in seconds: Python and PostgreSQL cannot compute dates that are much further away.
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
    """Raised by a `parse` of `Env.url`, with a text for `BadSetting` that shows nothing of the URL."""


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
