"""Reading a request strictly: a body of JSON that means one thing and is of a bounded size."""

import json
from typing import Any, NoReturn

from django.http import HttpRequest
from ninja.parser import Parser

from orders.api.problems import Problem, body_too_large

#: A hundred lines of the longest SKUs take 12 KB. What is larger is no order.
MAX_BODY_BYTES = 64 * 1024
#: Content types read as JSON: JSON's own, none, and what curl and browsers send where none is chosen.
_JSON_OR_UNSAID = ("application/json", "", "application/x-www-form-urlencoded", "text/plain")


class StrictParser(Parser):
    """Refuses with a 400 what Python's parser would let by: duplicate keys, of which the last would win, NaN, and
    encodings other than UTF-8, at which it would guess.
    """

    def parse_body(self, request: HttpRequest) -> Any:
        """The decoded body; raises a 413, 415 or 400 problem."""
        if len(request.body) > MAX_BODY_BYTES:
            raise body_too_large(MAX_BODY_BYTES)
        _check_type(request)
        try:
            # Not by `loads`, which takes UTF-16 as well.
            text = request.body.decode("utf-8")
            return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            # ValueError is also bytes that are no UTF-8, and integers of thousands of digits.
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
            raise Problem(
                400,
                "malformed_json",
                f"The body is not valid JSON: {reason}",
                errors=[{"field": "body", "message": "is not valid JSON"}],
            ) from error


def _check_type(request: HttpRequest) -> None:
    """Raises a 415 problem for a body that says that it is something else than JSON in UTF-8."""
    charset = (request.content_params or {}).get("charset", "utf-8")
    if request.content_type in _JSON_OR_UNSAID and charset.lower() in ("utf-8", "utf8"):
        return
    raise Problem(
        415,
        "unsupported_media_type",
        "Send JSON in UTF-8, as `Content-Type: application/json`.",
        errors=[{"field": "Content-Type", "message": "is not application/json in UTF-8"}],
    )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
