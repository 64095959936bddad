"""Secrets are stored, because a replay needs them, and never shown: not in a list, a detail page or an
export.

The mask is put on when a value is shown and is no part of the value, so that it cannot be saved back.
"""

from __future__ import annotations

import re
from typing import Any

MASK = "••••••"
_SECRET = (
    r"passw(?:or)?d|passphrase|secret|token|authori[sz]ation|api[_-]?key|private[_-]?key|credential|cookie|signature"
    r"|card|cvc|cvv|iban|\bpin\b"
)
_SECRET_KEY = re.compile(_SECRET, re.IGNORECASE)
#: `password=hunter2`, `"token": "abc"`, `Authorization: Bearer abc` inside free text.
_SECRET_PAIR = re.compile(
    rf"(?P<key>[\w-]*(?:{_SECRET})[\w-]*[\"']?\s*[:=]\s*)(?P<value>\"[^\"]*\"|'[^']*'|(?:Bearer|Basic)\s+\S+|[^\s,;)}}\]&]+)",
    re.IGNORECASE,
)
#: The password in `scheme://user:password@host`.
_URL = re.compile(r"(?<=://)(?P<user>[^\s:/@]*):[^\s/@]+@")
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_API_KEY = re.compile(r"\b(?:sk|rk|pk|whsec)_(?:live|test)?_?[A-Za-z0-9]{8,}\b")
_DIGITS = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w.-])")
#: Celery's own copies of the arguments, as text in which no key can be told from a value.
_COPIES = {"argsrepr", "kwargsrepr"}


def masked(value: Any) -> Any:
    """A copy of `value` without the values of secret keys, at any depth, and without secrets in texts."""
    if isinstance(value, dict):
        return {
            key: MASK if key in _COPIES or _SECRET_KEY.search(str(key)) else masked(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [masked(item) for item in value]
    if isinstance(value, str):
        return masked_text(value)
    return value


def masked_text(value: str) -> str:
    """`value` without `key=secret` pairs, bearer tokens, API keys and card numbers."""
    value = _SECRET_PAIR.sub(lambda match: match["key"] + MASK, value)
    value = _URL.sub(lambda match: f"{match['user']}:{MASK}@", value)
    value = _BEARER.sub(lambda match: f"{match[1]} {MASK}", value)
    value = _API_KEY.sub(MASK, value)
    return _DIGITS.sub(lambda match: MASK if _is_card(match[0]) else match[0], value)


def _is_card(digits: str) -> bool:
    """The Luhn check, which spares nine in ten long numbers that are no card's."""
    numbers = [int(digit) for digit in digits if digit.isdigit()]
    doubled = [number * 2 - 9 * (number > 4) for number in numbers[-2::-2]]
    return (sum(numbers[-1::-2]) + sum(doubled)) % 10 == 0
