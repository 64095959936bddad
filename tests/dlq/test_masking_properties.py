"""A secret of any supported shape, in whatever it is wrapped, is never shown; what is no secret stays."""

from __future__ import annotations

import datetime
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import make_dataclass
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlq.masking import MASK, masked, masked_prefix, masked_text

#: Nothing that has a meaning in any of the shapes, and never a word of the texts around it.
canaries = st.text(
    "abcdefghijkmnopqrstuvwxyzABCDEFGHIJKLMNPQRSTUVWXYZ0123456789", min_size=16, max_size=30
).map(lambda text: f"Q{text}")
names = st.sampled_from(
    [
        "password",
        "passwd",
        "Password",
        "db_password",
        "accessToken",
        "api_key",
        "X-Api-Key",
        "client-secret",
        "session_id",
        "pin",
        "otp",
        "jwt",
        "credentials",
        "reset_token",
        "card_number",
        "cvc",
        "passphrase",
    ]
)
#: What a secret looks like in a text; `{n}` is its name.
SHAPES = {
    "pair": "{n}={c}",
    "form": "a=1&{n}={c}&b=2",
    "form of a field": "user[{n}]={c}",
    "YAML": "{n}: {c}",
    "YAML, quoted": "{n}: '{c}'",
    "hash rocket": ":{n} => '{c}'",
    "JSON": '{{"{n}": "{c}", "order_id": 42}}',
    "nested JSON": '{{"{n}": {{"a": {{"b": "x"}}, "c": "{c}"}}, "order_id": 42}}',
    "repr": "{{'order_id': 42, '{n}': '{c}'}}",
    "bytes": "b'{n}={c}'",
    "repr of an object": "Config(order_id=42, {n}='{c}')",
    "repr of a hidden value": "Config({n}=SecretStr('{c}'), order_id=42)",
    "repr of an object in a secret": "Config({n}=Pair(first='x', second='{c}'), order_id=42)",
    "form of a list": "a=1&{n}[]={c}&b=2",
    "form of a mapping": "user[{n}][0]={c}",
    "quoted whole, with a separator": "env: '{n}=x;{c}'",
    "quoted whole, with a space": 'env: "{n}=x {c}"',
    "with a semicolon": "{n}=x;{c} order=42",
    "value quoted, with a semicolon": '{n}="x; {c}"',
    "tuple": "('{n}', '{c}')",
    "list": '["{n}", "{c}"]',
    "option": "curl --{n} {c} --verbose",
    "option with a sign": "curl --{n}={c}",
    "list of options": "['curl', '--{n}', '{c}']",
    "element": "<a><{n}>{c}</{n}></a>",
    "element with an attribute": '<{n} type="x">{c}</{n}>',
    "element of elements": "<{n}><a>x</a><b>{c}</b></{n}>",
    "element, escaped": "&lt;{n}&gt;{c}&lt;/{n}&gt;",
    "named value": '{{"name": "{n}", "value": "{c}"}}',
    "named value with more": '{{"name": "{n}", "type": "text", "value": "{c}"}}',
    "value with a name": '{{"value": "{c}", "name": "{n}"}}',
    "repr of a named value": "{{'key': '{n}', 'value': '{c}'}}",
    "form field": '<input name="{n}" value="{c}">',
    "element that is named": '<param type="x" name="{n}">{c}</param>',
    "element with a value": '<{n} type="x" value="{c}"/>',
    "part of a form": 'Content-Disposition: form-data; name="{n}"\r\n\r\n{c}\r\n--b--\r\n',
    "part with a type": 'name="{n}"\nContent-Type: text/plain\n\nx\n{c}\n--b',
    "basic": "Authorization: Basic {c}",
    "bearer": "Authorization: Bearer {c}",
    "other scheme": "Authorization: Digest username=x, response={c}",
    "bare bearer": "sent Bearer {c} to them",
    "cookie": "Cookie: a=1; b={c}",
    "set-cookie": "Set-Cookie: b={c}; HttpOnly",
    "query": "GET https://example.com/a?b=1&{n}={c}&d=2",
    "address": "postgres://user:{c}@db:5432/orders",
    "address with an at": "redis://:x@{c}@cache/0",
    "own key": "unknown key hf_{c}",
    "gateway's key": "Invalid API Key provided: sk_live_{c}",
    "signing secret": "whsec_{c} is no secret",
    "JWT": "rejected eyJhbGciOiJIUzI1NiJ9.{c}.{c}",
    "private key": "-----BEGIN EC PRIVATE KEY-----\n{c}\n-----END EC PRIVATE KEY-----",
    "private key block": "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{c}\n-----END PGP PRIVATE KEY BLOCK-----",
    "client secret": "no such pi_3MtwBwLkdIwHu7ix_secret_{c}",
}
WRAPPERS: dict[str, Callable[[str], str]] = {
    "JSON": lambda text: json.dumps({"body": text}),
    "JSON in JSON": lambda text: json.dumps(json.dumps({"body": text})),
    "repr": repr,
    "an exception": lambda text: f"ValueError({text!r})",
    "a line": lambda text: f"2026-11-28 ERROR a: failed for order 42:\n{text}\nTraceback",
    "brackets": lambda text: f"[{text}]",
    "nothing": str,
}
ENCODERS: dict[str, Callable[[str], str]] = {
    "once": quote,
    "as a form": quote_plus,
    "twice": lambda text: quote(quote(text)),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@given(name=names, canary=canaries, wrap=st.sampled_from(list(WRAPPERS.values())))
def test_a_secret_in_a_text_is_never_shown(
    shape: str, name: str, canary: str, wrap: Callable[[str], str]
) -> None:
    text = wrap(shape.format(n=name, c=canary))
    shown = masked_text(text)
    assert canary not in shown
    assert masked_text(f"{shown} (correlation c-1)") == f"{shown} (correlation c-1)", (
        "a line may be masked twice"
    )
    assert canary not in masked_prefix(text + " end" * 1000, 200)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@given(name=names, canary=canaries, encode=st.sampled_from(list(ENCODERS.values())))
def test_a_secret_in_url_encoded_text_is_never_shown(
    shape: str, name: str, canary: str, encode: Callable[[str], str]
) -> None:
    text = f"https://example.com/?next={encode(shape.format(n=name, c=canary))}"
    assert canary not in masked_text(text), masked_text(text)


@given(
    name=names,
    canary=canaries,
    put=st.sampled_from(
        [
            lambda n, c: {n: c},
            lambda n, c: {n: {"a": [c]}},
            lambda n, c: [n, c],
            lambda n, c: [{"headers": [["Accept", "x"], [n, c]]}],
            lambda n, c: {"name": n, "value": c},
            lambda n, c: {"data": [{"field": n, "content": {"a": c}}]},
            lambda n, c: ["mysql", f"--{n}", c, "orders"],
            lambda n, c: {"body": json.dumps({"inner": json.dumps({n: c})})},
            lambda n, c: {f"{n}={c}": 1},
            lambda n, c: {"argsrepr": c},
            lambda n, c: [f"{n}=x {c}"],
            lambda n, c: [f"{n}=x;{c}"],
            lambda n, c: {"headers": {"bearer": c}},
            lambda n, c: {"session": c, "api key": c, "pw": c},
            lambda n, c: ["mysql", "-u", "root", f"-p{c}"],
            lambda n, c: ["sshpass", "-p", c, "ssh", "host"],
            lambda n, c: ("curl", "-u", f"user:{c}", "https://example.com"),
            lambda n, c: {"config": repr(make_dataclass("Config", [("order_id", int), (n.replace("-", "_"), str)])(1, c))},
        ]
    ),
)  # fmt: skip
def test_a_secret_in_a_value_is_never_shown(name: str, canary: str, put: Callable[[str, str], Any]) -> None:
    value = {"order_id": 42, "payload": put(name, canary)}
    before = json.dumps(value)
    shown = masked(value)
    assert canary not in json.dumps(shown), shown
    assert shown["order_id"] == 42
    assert json.dumps(value) == before, "the mask is no part of what is stored"


@pytest.mark.parametrize(
    "command",
    [
        *("mysql -u root -p{}", "mysqldump --host db -p {} orders", "mongosh -u root -p {}", "sshpass -p {} ssh db"),
        *("docker login -u ada -p {} hub", "redis-cli -h cache -a {} ping", "curl -su ada:x -u ada:{} https://example.com"),
        *("curl --user 'ada:x {}' https://example.com", "curl --user=ada:{} https://example.com"),
    ],
)  # fmt: skip
@given(canary=canaries, wrap=st.sampled_from(list(WRAPPERS.values())))
def test_a_password_on_a_command_line_is_never_shown(
    command: str, canary: str, wrap: Callable[[str], str]
) -> None:
    assert canary not in masked_text(wrap(command.format(canary)))


@pytest.mark.parametrize("name", ["password", "Token", "db_secret"])
def test_bytes_are_masked_and_stay_bytes(name: str) -> None:
    plain = b"order=42 \xff"
    assert masked([f"{name}=Q".encode(), plain]) == [f"{name}={MASK}".encode(), plain]


def _luhn(digits: str) -> str:
    """`digits` with the digit that completes them."""
    numbers = [int(digit) for digit in digits]
    total = sum(numbers[-2::-2]) + sum(n * 2 - 9 * (n > 4) for n in numbers[-1::-2])
    return digits + str(-total % 10)


cards = st.sampled_from(
    [("4", 16), ("4", 13), ("51", 16), ("2223", 16), ("37", 15), ("6011", 16), ("36", 14)]
).flatmap(
    lambda kind: st.text(
        "0123456789", min_size=kind[1] - len(kind[0]) - 1, max_size=kind[1] - len(kind[0]) - 1
    ).map(lambda rest: _luhn(kind[0] + rest))
)


def _grouped(digits: str, by: str) -> str:
    return by.join(digits[start : start + 4] for start in range(0, len(digits), 4))


@given(card=cards, by=st.sampled_from(["", " ", "-", "."]))
def test_a_card_number_is_never_shown(card: str, by: str) -> None:
    number = _grouped(card, by)
    for text in (
        number, f"card {number} declined", f"declined: {number}.", f"2 x {number} 12/27", f'{{"pan":"{number}"}}',
        f"number%3D{card}&a=1", f"pan\\n{card}\\n", f"12 {number} 99", f"({number})",
    ):  # fmt: skip
        shown = masked_text(text)
        assert card not in "".join(filter(str.isdigit, shown.replace(MASK, ""))), shown
    assert masked([int(card), {"pan": int(card)}, float(card), json.dumps([int(card)])]) == [
        MASK, {"pan": MASK}, MASK, f"[{MASK}]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        *("secretary=Anna", "secretaries: Anna, Bob", "secretarial=yes", "tokens: 5", '{"max_tokens": 100, "order": 1}'),
        *("total_tokens=1234 of 4096", "token_count: 7", "psql -h db -p 5432 orders", "mkdir -p cards/new", "curl -u"),
        *({"tokens": 5}, {"max_tokens": 4.5}, {"session_count": 3}, {"secretary": "Anna"}, ["mkdir", "-p", "new"]),
        *("4242.42424242424242", "version 4242.4242.4242", "41.99999999999999", "4242.4242.4242.4242.4242"),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_secret_is_left_alone(value: Any) -> None:
    assert masked(value) == value


@pytest.mark.parametrize(
    "value", ["tokens: abc", {"tokens": "5a"}, {"tokens": ["abc"]}, {"cvc": 123}, "pin: 4321"]
)
def test_what_a_counter_holds_is_masked_unless_it_is_a_number(value: Any) -> None:
    assert MASK in str(masked(value))


moments = st.datetimes(datetime.datetime(2005, 1, 1), datetime.datetime(2033, 1, 1))


@given(
    moment=moments,
    number=st.integers(0, 10**12 - 1),
    some_uuid=st.uuids(),
    unit=st.sampled_from([10**3, 10**6, 10**9]),
)
def test_ordinary_numbers_and_texts_are_left_alone(
    moment: datetime.datetime, number: int, some_uuid: uuid.UUID, unit: int
) -> None:
    stamp = int(moment.replace(tzinfo=datetime.UTC).timestamp() * unit)
    value = {
        "order_id": number,
        "total": f"{number / 100:.2f} USD",
        "at": moment.isoformat(),
        "at_ms": stamp,
        "message_id": str(some_uuid),
        "text": f"order {number} of {some_uuid} at {stamp} ({moment:%Y%m%d%H%M%S}) failed: {number / 100:.2f} != 0.00",
        "path": f"/orders/{number}/items/{some_uuid.hex}?page=2",
        "discarded": True,
    }
    assert masked(value) == value


@pytest.mark.parametrize(
    "unit",
    [
        *("<password>", "<password", "&lt;token&gt;", '"name": "password", ', '"value": "', "'value': 'x', ", "--token "),
        *("password%3D", "password%22%2C", "%3A%2F%2Fa%3A", "%25", "4242 ", "4 ", "4242424242424242 ", "42424242"),
        *("password[", "password[]=", "mysql -p ", "curl -u a", "<a name='pin' ", "<a name='pin'>", "<pin value=", "pw=;a"),
        *('name="pin"', "name='pin'\r\n", "name='pin'\r\n\r\n", "name='pin'\\r\\n", "'pin=a", "4242.", "tokens: 5 "),
        *("token=((", "token=([{", 'value="name="token"', "hf_", "<token></token", "basic ", "type='pin' ", "<pin>&lt;/"),
    ],
)  # fmt: skip
def test_the_cost_is_in_proportion_to_the_length(unit: str) -> None:
    text = unit * (64 * 1024 // len(unit))
    began = time.process_time()
    masked_text(text)
    assert time.process_time() - began < 1


def test_a_text_of_a_megabyte_is_masked_in_seconds() -> None:
    text = "\n".join(SHAPES[shape].format(n="password", c="Q" * 20) for shape in SHAPES) + "\n"
    began = time.process_time()
    shown = masked_text(text * (1024 * 1024 // len(text)))
    assert time.process_time() - began < 10
    assert "QQQ" not in shown
