"""Reading the `Idempotency-Key` header: `"abc"`, `"abc";v=1` and `abc` are the same key, and two keys are refused."""

import re

from idempotency.errors import InvalidKey

_CHARACTER = r'(?:[ !#-\[\]-~]|\\["\\])'
#: A value of RFC 8941: number, string, token, bytes or boolean.
_VALUE = "|".join(
    (
        r"-?\d{1,12}\.\d{1,3}|-?\d{1,15}",
        f'"{_CHARACTER}*"',
        "[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*",
        ":[A-Za-z0-9+/=]*:",
        r"\?[01]",
    )
)
_PARAMETER = rf"; *[a-z*][a-z0-9_.*-]*(?:=(?:{_VALUE}))?"
#: A string of RFC 8941 (printable ASCII in quotation marks, with a backslash before each quotation mark and backslash
#: inside it) with its parameters, or the same text bare, without parameters. No bare key begins with a quotation mark.
KEY_PATTERN = rf'^(?:[!#-+\--~][ -+\--~]*|"(?:[ !#-\[\]-~]|\\\\){_CHARACTER}*"(?:{_PARAMETER})*)$'
#: Its length as it is sent.
MAX_KEY_LENGTH = 255


def parse_key(header: str | None) -> str:
    """The key in the value of an `Idempotency-Key` header; raises InvalidKey with the reason. Parameters are ignored.

    Two header fields arrive as one value with a comma, and so does a bare key that has a comma: which key is meant
    cannot be known.
    """
    if not header:
        raise InvalidKey("must be sent")
    if not header.isascii() or not header.isprintable() or len(header) > MAX_KEY_LENGTH:
        raise InvalidKey(f"must be printable ASCII of at most {MAX_KEY_LENGTH} characters")
    if re.fullmatch(KEY_PATTERN, header):
        quoted = re.match(rf'"({_CHARACTER}*)"', header)
        return re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else header
    if "," in re.sub(r'"(?:[^"\\]|\\.)*"', "", header):
        raise InvalidKey("must be sent once; a key that contains a comma is sent in quotation marks")
    raise InvalidKey(
        'must be a quoted string such as "a key", with \\ before " and \\ inside it, or the bare key'
    )
