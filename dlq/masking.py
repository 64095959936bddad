"""Secrets are stored, because a replay needs them, and never shown: not in a list, a detail page, an export or
a log.

The mask is put on when a value is shown and is no part of the value, so that it cannot be saved back. What is
shown comes from outside: every pattern reads each character a bounded number of times, so that no text can
hold up the process that shows it. Possessive quantifiers (`++`) and the look behind at the start of a word are
what keeps it so.
"""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import unquote, unquote_plus

MASK = "••••••"
#: A text is decoded from URLs within URLs so often, and not for ever.
MAX_ENCODINGS = 3
#: Parts of names that say that the value is a secret; the short ones only as a whole part, as in `X-Auth`.
_SECRET = (
    r"passw(?:or)?d|passphrase|passcode|pwd|secret|token|authori[sz]ation|credential|cookie|signature"
    r"|(?:api|private|access|signing|encryption)[_-]?key|sess(?:ion)?[_-]?(?:id|key)"
    r"|(?<!dis)(?<!wild)card|cvc|cvv|iban|(?<![^\W_])(?:pass|pin|otp|auth|jwt|sig)(?![^\W_])"
)
_SECRET_KEY = re.compile(_SECRET, re.IGNORECASE)
#: Without one of these a text names no secret.
_NAMES = (
    *(
        "pass",
        "pwd",
        "secret",
        "token",
        "authori",
        "credential",
        "cookie",
        "signature",
        "key",
        "sess",
        "card",
    ),
    *("cvc", "cvv", "iban", "pin", "otp", "auth", "jwt", "sig"),
)
#: The beginning of a word; in a text that was escaped it may follow the `n` of a line break.
_START = r"(?:(?<![\w-])|(?<=\\[nrt]))"
#: A quote, escaped as often as it may be.
_QUOTE = r"\\*+[\"']"
#: What a secret is, after the sign that it comes. One that was cut off in the middle ends with the text. A mask is none:
#: a line of a log may be made of masked parts.
_VALUE = (
    rf"(?!{MASK})"
    + r"""(?: [bru]{0,2}
        (?: "(?:[^"\\]|\\.)*+"?+
          | '(?:[^'\\]|\\.)*+'?+
          | (?P<quote>\\+["']).*?(?:(?<!\\)(?P=quote)|\Z) )
      | [\w.]*+[\[({](?:[^\[\](){}]|[\[({](?:[^\[\](){}]|[\[({][^\[\](){}]*+[\])}]?+)*+[\])}]?+)*+[\])}]?+
      | (?:Bearer|Basic)\s++\S++
      | [^\s,;)}\]&]++ )"""
)
#: The rest of the line: schemes of authorisation are many, and cookies hold spaces.
_HEADER = re.compile(
    rf"(?P<key>{_START}[\w-]{{0,60}}?(?:authori[sz]ation|cookie)[ \t]*+[:=][ \t]*+)(?!{MASK})[^\s\"'\\][^\r\n]*+",
    re.IGNORECASE,
)
#: `password=hunter2`, `"token": "abc"`, `('secret', 'abc')`, `user[pin]=1234`, `--password abc`, also as JSON inside of
#: JSON.
_PAIR = re.compile(
    rf"""
    (?P<key>
        {_START} (?P<option>-{{1,2}})?+ (?=[\w-]*?(?:{_SECRET})) [\w-]++
        (?: \\*+["']?+\]?+ [\s+]*+[:=]++>?+[\s+]*+
          | {_QUOTE}\s*+,[\s+]*+ (?=[bru]{{0,2}}{_QUOTE}) (?![bru]{{0,2}}{_QUOTE}[\w-]*+{_QUOTE}\s*+[:=])
          | (?(option)[ \t+]++(?!-)|(?!)) )
    )
    {_VALUE}
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
#: `"name": "password", … "value": "hunter2"`, as of headers, forms and settings, and the same the other way round.
_NAMED = rf"""(?:name|key|field|header|param(?:eter)?|type)(?:{_QUOTE})?+\s*+[:=]\s*+
    {_QUOTE}(?=[\w-]*?(?:{_SECRET}))[\w-]++{_QUOTE}"""
_AS_VALUE = rf"(?<![\w-])(?:value|val|content|data)(?:{_QUOTE})?+\s*+[:=]\s*+"
_NAMED_VALUE = re.compile(
    rf"(?P<key>(?<![\w-]){_NAMED}[^{{}}<>]{{0,200}}?{_AS_VALUE}){_VALUE}",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_VALUE_NAMED = re.compile(
    rf"""(?P<key>{_AS_VALUE}) (?P<q>{_QUOTE}) [^{{}}<>"']{{0,500}}? (?P<rest>(?P=q)[^{{}}<>]{{0,200}}?(?<![\w-]){_NAMED})""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
#: `<password>hunter2</password>`, also with its brackets escaped; with no end within reach it ends with the line.
_ELEMENT = re.compile(
    rf"""
    (?P<key> (?:<|&lt;) (?P<tag>(?=[\w:.-]*?(?:{_SECRET}))[\w:.-]++) [^<>&/]{{0,200}}+ (?:>|&gt;) )
    (?: .{{0,1000}}?(?=(?:<|&lt;)/(?P=tag)) | [^<&\r\n]*+ )
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
#: `scheme://user:`, and after it the whole word: a password may hold an `@` itself.
_URL = re.compile(r"(?<=://)(?P<user>[^\s:/]*+):(?P<rest>\S++)")
_BEARER = re.compile(r"\b(Bearer|Basic)([\s+]++)[\w.~+/=-]{8,}+", re.IGNORECASE)
#: A word that is encoded for a URL, at least in part.
_ENCODED = re.compile(r"(?<!\S)\S*?%[0-9A-Fa-f]{2}\S*+")
#: What is known by its looks: keys and tokens of Stripe, GitHub, GitLab, OpenAI, Slack, AWS and Google, and our own.
_KNOWN = re.compile(
    rf"""{_START} (?:
        (?:sk|rk|pk|whsec)_(?:live|test)?_?[A-Za-z0-9+/=]{{8,}}+
      | hf_[\w-]{{16,}}+
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
_KNOWN_BY = (
    *(
        "sk_",
        "rk_",
        "pk_",
        "whsec_",
        "hf_",
        "sk-",
        "rk-",
        "pk-",
        "gh",
        "glpat-",
        "xox",
        "akia",
        "asia",
        "aiza",
    ),
    "eyj",
)
#: The secret half of `pi_…_secret_…`: the first half is the id, which an operator looks for.
_CLIENT_SECRET = re.compile(rf"(?P<id>{_START}(?:pi|seti|src|cs)_\w{{1,120}}?_secret_)\w++")
_WEBHOOK = re.compile(r"(?P<host>hooks\.slack\.com/\w++/)\S++")
_PRIVATE_KEY = re.compile(
    r"(?s)-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END[A-Z -]{0,50}|\Z)"
)
#: A run of digits, in groups or not, that is neither part of a word nor of a number with a point.
_DIGITS = re.compile(r"(?:(?<![\w.-])|(?<=\\[nrt]))\d(?:[ -]?\d){12,}+(?!\w|[.-]\w)")
_GROUP = re.compile(r"\d+")
#: First digits and lengths of the cards of Visa, Mastercard, American Express, Diners, JCB, Discover, UnionPay, Maestro.
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-59]|[68]\d)\d{11,16}|35\d{14,17}|6\d{15,18}|5[06-8]\d{11,17}"
)
_CARD_LENGTHS = range(13, 20)
#: Celery's own copies of the arguments, as text in which no key can be told from a value.
_COPIES = {"argsrepr", "kwargsrepr"}
#: Keys of which one says what the other holds: `{"name": "password", "value": "hunter2"}`.
_NAMING = {"name", "key", "field", "header", "param", "parameter", "type"}
_HOLDING = {"value", "values", "val", "content", "data"}
#: A prefix is masked with this much of what follows it, so that no secret is cut before it can be recognised.
_MARGIN = 4
#: What may be left of one that was cut all the same.
_CUT = 40


def masked(value: Any) -> Any:
    """A copy of `value` without the values of secret keys, at any depth, and without secrets in texts."""
    if isinstance(value, dict):
        named = any(
            isinstance(item, str) and str(key).lower() in _NAMING and names_a_secret(item)
            for key, item in value.items()
        )
        return {
            masked(key): MASK
            if key in _COPIES or is_secret(str(key)) or (named and str(key).lower() in _HOLDING)
            else masked(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        if len(value) == 2 and isinstance(value[0], str) and names_a_secret(value[0]):
            return [value[0], MASK]
        options = (None, *value)
        return [
            MASK if isinstance(option, str) and option[:1] == "-" and names_a_secret(option) else masked(item)
            for option, item in zip(options, value, strict=False)
        ]
    if isinstance(value, str):
        return masked_text(value)
    if isinstance(value, (int, float)) and 10**12 <= value < 10**19 and _is_card(f"{value:.0f}"):
        return MASK
    return value


def masked_text(value: str) -> str:
    """`value` without `key=secret` pairs, tokens and keys that are known by their looks, and card numbers.

    A word that is encoded for a URL is shown decoded where it holds a secret.
    """
    return _masked_text(value, MAX_ENCODINGS)


def _masked_text(value: str, encodings: int) -> str:
    # Most texts hold nothing of the kind, and to look for it is cheaper than to look at it.
    lower = value.lower()
    if "private key" in lower:
        value = _PRIVATE_KEY.sub(MASK, value)
    if any(name in lower for name in _NAMES):
        value = _HEADER.sub(_behind_the_key, value)
        if any(name in lower for name in ("val", "content", "data")):
            value = _NAMED_VALUE.sub(_behind_the_key, value)
            value = _VALUE_NAMED.sub(lambda match: f"{match['key']}{MASK}{match['rest']}", value)
        value = _PAIR.sub(_behind_the_key, value)
        if "<" in value or "&lt;" in lower:
            value = _ELEMENT.sub(_behind_the_key, value)
        value = _CLIENT_SECRET.sub(lambda match: match["id"] + MASK, value)
    if "://" in value:
        value = _URL.sub(_masked_url, value)
    if "bearer" in lower or "basic" in lower:
        value = _BEARER.sub(lambda match: f"{match[1]}{match[2]}{MASK}", value)
    if any(name in lower for name in _KNOWN_BY):
        value = _KNOWN.sub(MASK, value)
    if "hooks.slack.com" in lower:
        value = _WEBHOOK.sub(lambda match: match["host"] + MASK, value)
    value = _DIGITS.sub(lambda match: _without_cards(match[0]), value)
    if encodings and "%" in value:
        value = _ENCODED.sub(lambda match: _masked_encoded(match[0], encodings - 1), value)
    return value


def masked_prefix(value: str, length: int) -> str:
    """The first `length` characters of `value`, masked; the price does not depend on how long the rest is."""
    shown = masked_text(value[: length * _MARGIN])
    if len(value) > length * _MARGIN:
        shown = shown[:-_CUT]
    return shown[:length]


class Formatter(logging.Formatter):
    """Lines of a log without secrets, whoever wrote them: an exception's text and traceback quote what they were given."""

    def format(self, record: logging.LogRecord) -> str:
        return masked_text(super().format(record))


def is_secret(name: str) -> bool:
    """Whether what has this name is a secret."""
    return _SECRET_KEY.search(name) is not None


def names_a_secret(value: str) -> bool:
    """Whether the first of a pair, such as a header, is a name and no sentence."""
    return re.fullmatch(r"[\w-]{1,60}", value) is not None and is_secret(value)


def _behind_the_key(match: re.Match[str]) -> str:
    return match["key"] + MASK


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


def _without_cards(run: str) -> str:
    """`run` without the card numbers in it: several groups of digits may stand side by side."""
    groups = list(_GROUP.finditer(run))
    shown, end, first = "", 0, 0
    while first < len(groups):
        digits, card = "", 0
        for last in range(first, len(groups)):
            digits += groups[last][0]
            if len(digits) > _CARD_LENGTHS[-1]:
                break
            if _is_card(digits):
                card = last + 1
        if card:
            shown += run[end : groups[first].start()] + MASK
            end, first = groups[card - 1].end(), card
        else:
            first += 1
    return shown + run[end:]


def _is_card(digits: str) -> bool:
    """An issuer's first digits and length, and the Luhn check, which spares nine in ten numbers that are no card's."""
    if len(digits) not in _CARD_LENGTHS or not _ISSUED.fullmatch(digits):
        return False
    numbers = [int(digit) for digit in digits]
    doubled = [number * 2 - 9 * (number > 4) for number in numbers[-2::-2]]
    return (sum(numbers[-1::-2]) + sum(doubled)) % 10 == 0
