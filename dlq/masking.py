"""Secrets are stored, because a replay needs them, and never shown: not in a list, a detail page, an export or
a log.

The mask is put on when a value is shown and is no part of the value, so that it cannot be saved back. What is
shown comes from outside: every pattern reads each character a bounded number of times, so that no text can
hold up the process that shows it. Possessive quantifiers (`++`) and the look behind at the start of a word are
what keeps it so.
"""

from __future__ import annotations

import re
from typing import Any

MASK = "••••••"
#: Parts of names that say that the value is a secret; the short ones only as a whole part, as in `X-Auth`.
_SECRET = (
    r"passw(?:or)?d|passphrase|passcode|pwd|secret|token|authori[sz]ation|credential|cookie|signature"
    r"|(?:api|private|access|signing|encryption)[_-]?key|sess(?:ion)?[_-]?(?:id|key)"
    r"|card|cvc|cvv|iban|(?<![^\W_])(?:pass|pin|otp|auth|jwt|sig)(?![^\W_])"
)
_SECRET_KEY = re.compile(_SECRET, re.IGNORECASE)
#: The beginning of a word; in a text that was escaped it may follow the `n` of a line break.
_START = r"(?:(?<![\w-])|(?<=\\[nrt]))"
#: The rest of the line: schemes of authorisation are many, and cookies hold spaces.
_HEADER = re.compile(
    rf"(?P<key>{_START}[\w-]{{0,60}}?(?:authori[sz]ation|cookie)[ \t]*+[:=][ \t]*+)[^\s\"'\\][^\r\n]*+",
    re.IGNORECASE,
)
#: `password=hunter2`, `"token": "abc"`, `('secret', 'abc')`, `user[pin]=1234`, also as JSON inside of JSON. A
#: value that was cut off in the middle ends with the text.
_PAIR = re.compile(
    rf"""
    (?P<key>
        {_START} (?=[\w-]*?(?:{_SECRET})) [\w-]++
        (?: \\*+["']?+(?:\]|%5D)?+ \s*+[:=]++>?+\s*+
          | \\*+["']\s*+,\s*+ (?=[bru]{{0,2}}\\*+["']) )
    )
    (?: [bru]{{0,2}}
        (?: "(?:[^"\\]|\\.)*+"?+
          | '(?:[^'\\]|\\.)*+'?+
          | (?P<quote>\\+["']).*?(?:(?<!\\)(?P=quote)|\Z) )
      | [\[({{][^\])}}]*+[\])}}]?+
      | (?:Bearer|Basic)\s++\S++
      | [^\s,;)}}\]&]++ )
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
#: `scheme://user:`, and after it the whole word: a password may hold an `@` itself.
_URL = re.compile(r"(?<=://)(?P<user>[^\s:/]*+):(?P<rest>\S++)")
_BEARER = re.compile(r"\b(Bearer|Basic)\s++[\w.~+/=-]{8,}+", re.IGNORECASE)
#: What is known by its looks: keys and tokens of Stripe, GitHub, GitLab, OpenAI, Slack, AWS and Google.
_KNOWN = re.compile(
    rf"""{_START} (?:
        (?:sk|rk|pk|whsec)_(?:live|test)?_?[A-Za-z0-9]{{8,}}+
      | (?:sk|rk|pk)-[\w-]{{8,}}+
      | (?:gh[opsur]|github_pat)_\w{{8,}}+
      | glpat-[\w-]{{8,}}+
      | xox[a-z]-[\w-]{{8,}}+
      | (?:AKIA|ASIA)[A-Z0-9]{{12,}}+
      | AIza[\w-]{{30,}}+
      | eyJ[\w-]{{8,}}+(?:\.[\w-]++)++
    )""",
    re.VERBOSE,
)
#: The secret half of `pi_…_secret_…`: the first half is the id, which an operator looks for.
_CLIENT_SECRET = re.compile(rf"(?P<id>{_START}(?:pi|seti|src|cs)_\w{{1,120}}?_secret_)\w++")
_WEBHOOK = re.compile(r"(?P<host>hooks\.slack\.com/\w++/)\S++")
_PRIVATE_KEY = re.compile(r"(?s)-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END[A-Z -]{0,50}|\Z)")
_DIGITS = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w.-])")
#: Celery's own copies of the arguments, as text in which no key can be told from a value.
_COPIES = {"argsrepr", "kwargsrepr"}
#: A prefix is masked with this much of what follows it, so that no secret is cut before it can be recognised.
_MARGIN = 4


def masked(value: Any) -> Any:
    """A copy of `value` without the values of secret keys, at any depth, and without secrets in texts."""
    if isinstance(value, dict):
        return {
            key: MASK if key in _COPIES or _SECRET_KEY.search(str(key)) else masked(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        if len(value) == 2 and isinstance(value[0], str) and _names_a_secret(value[0]):
            return [value[0], MASK]
        return [masked(item) for item in value]
    if isinstance(value, str):
        return masked_text(value)
    return value


def masked_text(value: str) -> str:
    """`value` without `key=secret` pairs, tokens and keys that are known by their looks, and card numbers."""
    value = _PRIVATE_KEY.sub(MASK, value)
    value = _HEADER.sub(lambda match: match["key"] + MASK, value)
    value = _PAIR.sub(lambda match: match["key"] + MASK, value)
    value = _URL.sub(_masked_url, value)
    value = _BEARER.sub(lambda match: f"{match[1]} {MASK}", value)
    value = _CLIENT_SECRET.sub(lambda match: match["id"] + MASK, value)
    value = _KNOWN.sub(MASK, value)
    value = _WEBHOOK.sub(lambda match: match["host"] + MASK, value)
    return _DIGITS.sub(lambda match: MASK if _is_card(match[0]) else match[0], value)


def masked_prefix(value: str, length: int) -> str:
    """The first `length` characters of `value`, masked; the price does not depend on how long the rest is."""
    return masked_text(value[: length * _MARGIN])[:length]


def _names_a_secret(value: str) -> bool:
    """Whether the first of a pair, such as a header, is a name and no sentence."""
    return re.fullmatch(r"[\w-]{1,60}", value) is not None and _SECRET_KEY.search(value) is not None


def _masked_url(match: re.Match[str]) -> str:
    _, at, host = match["rest"].rpartition("@")
    return f"{match['user']}:{MASK}@{host}" if at else match[0]


def _is_card(digits: str) -> bool:
    """The Luhn check, which spares nine in ten long numbers that are no card's."""
    numbers = [int(digit) for digit in digits if digit.isdigit()]
    doubled = [number * 2 - 9 * (number > 4) for number in numbers[-2::-2]]
    return (sum(numbers[-1::-2]) + sum(doubled)) % 10 == 0
