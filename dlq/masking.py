"""Secrets are stored, because a replay needs them, and never shown: not in a list, a detail page, an export or
a log.

The mask is put on when a value is shown and is no part of the value, so that it cannot be saved back. What is
shown comes from outside: the price is in proportion to its length.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any
from urllib.parse import unquote, unquote_plus

from dlq import secret_patterns as patterns
from dlq.card_numbers import is_card, masked_cards
from dlq.secret_patterns import MASK

#: How often a text is decoded, for URLs within URLs.
MAX_ENCODINGS = 3
#: Celery's own copies of the arguments, as text in which no key can be told from a value.
_COPIES = {"argsrepr", "kwargsrepr"}
#: Keys of which one says what the other holds: `{"name": "password", "value": "hunter2"}`.
_NAMING = {"name", "key", "field", "header", "param", "parameter", "type"}
_HOLDING = {"value", "values", "val", "content", "data"}
#: A prefix is masked with this much of what follows it, so that no secret is cut before it can be recognised.
_MARGIN = 4
#: What may be left of one that was cut all the same.
_CUT = 40
#: Before each line of a traceback in a log.
INDENT = "    "


def masked(value: Any) -> Any:
    """A copy of `value` without the values of secret keys, at any depth, and without secrets in texts."""
    if isinstance(value, dict):
        named = any(
            isinstance(item, str) and str(key).lower() in _NAMING and names_a_secret(item)
            for key, item in value.items()
        )
        return {
            masked(key): MASK
            if key in _COPIES or _holds_a_secret(str(key), item) or (named and str(key).lower() in _HOLDING)
            else masked(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        if len(value) == 2 and isinstance(value[0], str) and names_a_secret(value[0]):
            return [value[0], MASK]
        if all(isinstance(item, str) for item in value) and patterns.COMMAND.search(line := " ".join(value)):
            return [masked_text(line)]
        options = (None, *value)
        return [
            MASK if isinstance(option, str) and option[:1] == "-" and names_a_secret(option) else masked(item)
            for option, item in zip(options, value, strict=False)
        ]
    if isinstance(value, str):
        name, _, rest = value.partition("=")
        whole = names_a_secret(name) and not re.search(r"[=\n]", rest)
        if rest and whole and not (patterns.COUNTER.search(name) and patterns.NUMBER.match(rest)):
            # Of a list of variables: all of it is the value.
            return f"{name}={MASK}"
        return masked_text(value)
    if isinstance(value, bytes):
        text = value.decode(errors="replace")
        return value if (shown := masked_text(text)) == text else shown.encode()
    if isinstance(value, (int, float)) and 10**12 <= abs(value) < 10**19 and is_card(f"{abs(value):.0f}"):
        return MASK
    return value


def masked_text(value: str) -> str:
    """`value` without `key=secret` pairs, tokens and keys that are known by their looks, and card numbers.

    A word that is encoded for a URL is shown decoded where it holds a secret.
    """
    return _masked_text(value, MAX_ENCODINGS)


def _masked_text(value: str, encodings: int) -> str:
    # Most texts contain nothing of the kind, and this look costs less than the patterns.
    lower = value.lower()
    if "private key" in lower:
        value = patterns.PRIVATE_KEY.sub(MASK, value)
    if any(name in lower for name in patterns.NAMES):
        value = patterns.HEADER.sub(_behind_the_key, value)
        if "name=" in lower:
            value = patterns.PART.sub(_behind_the_key, value)
        if any(name in lower for name in ("val", "content", "data")):
            value = patterns.NAMED_VALUE.sub(_behind_the_key, value)
            value = patterns.VALUE_NAMED.sub(lambda match: f"{match['key']}{MASK}{match['rest']}", value)
        value = patterns.QUOTED_PAIR.sub(_behind_the_key, value)
        value = patterns.PAIR.sub(_behind_the_key, value)
        if "<" in value or "&lt;" in lower:
            value = patterns.ELEMENT.sub(_behind_the_key, value)
            value = patterns.NAMED_ELEMENT.sub(_behind_the_key, value)
        value = patterns.CLIENT_SECRET.sub(lambda match: match["id"] + MASK, value)
    if " -" in value:
        value = patterns.COMMAND.sub(_behind_the_key, value)
    if "://" in value:
        value = patterns.URL.sub(_masked_url, value)
    if "bearer" in lower or "basic" in lower:
        value = patterns.BEARER.sub(lambda match: f"{match[1]}{match[2]}{MASK}", value)
    if any(name in lower for name in patterns.KNOWN_BY):
        value = patterns.KNOWN.sub(MASK, value)
    if "/" in value:
        value = patterns.RESET.sub(MASK, value)
    if "hooks.slack.com" in lower:
        value = patterns.WEBHOOK.sub(lambda match: match["host"] + MASK, value)
    value = masked_cards(value, MASK)
    if encodings and "%" in value:
        value = patterns.ENCODED.sub(lambda match: _masked_encoded(match[0], encodings - 1), value)
    return value


def masked_prefix(value: str, length: int) -> str:
    """The first `length` characters of `value`, masked; the price does not depend on how long the rest is."""
    shown = masked_text(value[: length * _MARGIN])
    if len(value) > length * _MARGIN:
        shown = shown[:-_CUT]
    return shown[:length]


class Formatter(logging.Formatter):
    """Lines of a log without secrets, also of libraries: an exception's text and traceback quote what they were given.

    A message is one line, whatever it quotes: a line break in the name of a task could forge another. The lines of a
    traceback are indented, since the text of its exception may have line breaks too: only a record begins in the first column.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        # Masked before it is escaped: some secrets end with their line.
        return one_line(masked_text(super().formatMessage(record)))

    def format(self, record: logging.LogRecord) -> str:
        shown = super().format(record)
        if record.exc_text or record.stack_info:
            head, *lines = each_line(masked_text(shown)).split("\n")
            shown = "\n".join((head, *(f"{INDENT}{line}" for line in lines)))
        return shown


def one_line(value: str) -> str:
    """`value` with what is not printable (line breaks, and what a terminal obeys) escaped as in JSON."""
    if value.isprintable():
        return value
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in value)


def each_line(value: str) -> str:
    """The same of a text that keeps its line breaks, such as a traceback."""
    return "\n".join(map(one_line, value.split("\n")))


def is_secret(name: str) -> bool:
    """Whether what has this name is a secret."""
    return patterns.SECRET_KEY.search(name) is not None


def names_a_secret(value: str) -> bool:
    """Whether the first of a pair, such as a header, is a name and no sentence."""
    return re.fullmatch(rf"[\w-]{{1,60}}|(?i:{patterns.KEY_OF}) key", value) is not None and is_secret(value)


def _holds_a_secret(name: str, value: Any) -> bool:
    return is_secret(name) and not (isinstance(value, (int, float)) and patterns.COUNTER.search(name))


def _behind_the_key(match: re.Match[str]) -> str:
    key = match["key"]
    counted = patterns.NUMBER.fullmatch(match[0], len(key)) and patterns.COUNTER.search(key)
    return match[0] if counted else key + MASK


def _masked_url(match: re.Match[str]) -> str:
    _, at, host = match["rest"].rpartition("@")
    return f"{match['user']}:{MASK}@{host}" if at else match[0]


def _masked_encoded(word: str, encodings: int) -> str:
    # A plus is a space in forms alone: read as one elsewhere it would end a secret too early.
    for decoded in (unquote(word), unquote_plus(word)):
        shown = _masked_text(decoded, encodings)
        if shown != decoded:
            return shown
    return word
