"""Reading the `Idempotency-Key` header: `"abc"` and `abc` are the same key, and two keys are none."""

import re

from idempotency.errors import InvalidKey

#: A string of RFC 8941 (printable ASCII in quotation marks, with a backslash before each quotation mark and backslash inside
#: it), or the same bare. No bare key begins with a quotation mark.
KEY_PATTERN = r'^(?:[!#-+\--~][ -+\--~]*|"(?:[ !#-\[\]-~]|\\\\)(?:[ !#-\[\]-~]|\\["\\])*")$'
#: Its length as it is sent.
MAX_KEY_LENGTH = 255


def parse_key(header: str | None) -> str:
    """The key in the value of an `Idempotency-Key` header; raises InvalidKey with the reason.

    Two fields come as one value with a comma, and so does a bare key that has a comma: of neither it can be known which key
    is meant.
    """
    if not header:
        raise InvalidKey("must be sent")
    if not header.isascii() or not header.isprintable() or len(header) > MAX_KEY_LENGTH:
        raise InvalidKey(f"must be printable ASCII of at most {MAX_KEY_LENGTH} characters")
    if re.fullmatch(KEY_PATTERN, header):
        return re.sub(r"\\(.)", r"\1", header[1:-1]) if header[0] == '"' else header
    if "," in re.sub(r'"(?:[^"\\]|\\.)*"', "", header):
        raise InvalidKey("must be sent once; a key that contains a comma is sent in quotation marks")
    raise InvalidKey(
        'must be a quoted string such as "a key", with \\ before " and \\ inside it, or the bare key'
    )
