"""Errors of the HTTP API as problem documents (RFC 9457): what went wrong, and which field to look at."""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NoReturn

from django.http import HttpRequest, HttpResponse

from outbox.database import first_line, leave_server, may_pass

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
#: The path of the API.
API_PREFIX = "/api/"
#: Where programs call us: below these every error is a problem document, Django's own included.
PROBLEM_PREFIXES = (API_PREFIX, "/webhooks/")


class Problem(Exception):
    """An error with its answer. `code` is for machines and stays the same; `detail` is for people."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}

    def response(self, request: HttpRequest) -> HttpResponse:
        """The document as an HTTP answer."""
        document: dict[str, Any] = {
            "type": f"https://holdfast.example/problems/{self.code.replace('_', '-')}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": request.path,
            "code": self.code,
        }
        if self.errors:
            document["errors"] = list(self.errors)
        return HttpResponse(
            json.dumps(document), status=self.status, content_type=CONTENT_TYPE, headers=dict(self.headers)
        )


def field_problem(status: int, code: str, field: str, message: str) -> Problem:
    """A problem with one field of the request."""
    return Problem(status, code, message, errors=[{"field": field, "message": message}])


def body_too_large(limit: int) -> Problem:
    """A 413 for a body of more than `limit` bytes."""
    return Problem(
        413,
        "body_too_large",
        f"The body may have at most {limit} bytes.",
        errors=[{"field": "body", "message": f"is larger than {limit} bytes"}],
    )


def busy(status: int, code: str, detail: str, *, retry_after_s: float) -> Problem:
    """A problem that goes away by itself: 409, 429 or 503 with a Retry-After of at least a second."""
    # Rounded up: a client that comes back a moment too early is refused again.
    return Problem(status, code, detail, headers={"Retry-After": str(max(1, math.ceil(retry_after_s)))})


DATABASE_UNAVAILABLE = busy(
    503,
    "database_unavailable",
    "The database is unavailable, and the request may have taken effect: repeat it, with its Idempotency-Key if it has one.",
    retry_after_s=2,
)


class ProblemDocuments:
    """Middleware that turns every error below `PROBLEM_PREFIXES` that is no problem document yet into one.

    Unknown paths, wrong methods, refused hosts and crashes are answered by Django, outside of the API's own handlers. A view
    that has no handlers, such as the receiver's, answers with its reason as plain text. An error of the database that may
    pass is a 503, whatever view met it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        status = response.status_code
        if (
            not request.path.startswith(PROBLEM_PREFIXES)
            or status < 400
            or response["Content-Type"] == CONTENT_TYPE
        ):
            return response
        code, detail = _WORDS.get(status, (HTTPStatus(status).name.lower(), HTTPStatus(status).description))
        if response["Content-Type"].startswith("text/plain"):
            # A view's own reason. What Django answers by itself is HTML.
            detail = response.content.decode().strip()
        headers = {name: response[name] for name in ("Allow", "Retry-After") if name in response}
        return Problem(status, code, detail or HTTPStatus(status).phrase, headers=headers).response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """A database that is down, or cannot write now, is answered with 503 and not with 500."""
        # A thread keeps its session for minutes: one to a server that is the primary no more would refuse all its orders.
        leave_server(error)
        if not may_pass(error):
            return None
        logger.error("the database is unavailable: %s", first_line(error))
        if request.path.startswith(PROBLEM_PREFIXES):
            return DATABASE_UNAVAILABLE.response(request)
        return HttpResponse(
            "The database is unavailable; try again in a moment.\n",
            status=503,
            content_type="text/plain",
            headers=DATABASE_UNAVAILABLE.headers,
        )


_WORDS = {
    400: ("bad_request", "The request cannot be understood."),
    404: ("not_found", "There is nothing at this address."),
    405: (
        "method_not_allowed",
        "This address does not accept this method; the Allow header lists those that it accepts.",
    ),
    500: (
        "internal_error",
        "The server failed, and may not have accepted the request: repeat it, with its Idempotency-Key if it has one.",
    ),
}

_PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}


_HEADERS: dict[str, dict[str, Any]] = {
    "WWW-Authenticate": {"schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
    "Location": {
        "description": "Address of the order.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Idempotent-Replayed": {
        "description": "Present when this answer was given before.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}
#: Status → what each problem of it has.
_USUAL_HEADERS: dict[int, Sequence[str]] = {
    401: ["WWW-Authenticate"],
    429: ["Retry-After"],
    503: ["Retry-After"],
}


def documented(
    descriptions: Mapping[int, str], *, headers: Mapping[int, Sequence[str]] | None = None
) -> dict[str, Any]:
    """The OpenAPI text of an operation's problems: status → when it is answered. `headers` are those of its other
    answers, and of the problems that have some here and none elsewhere.
    """
    responses: dict[int, dict[str, Any]] = {
        status: {"description": description, "content": {CONTENT_TYPE: {"schema": _PROBLEM_SCHEMA}}}
        for status, description in descriptions.items()
    }
    usual = {status: names for status, names in _USUAL_HEADERS.items() if status in descriptions}
    for status, names in (usual | dict(headers or {})).items():
        responses.setdefault(status, {})["headers"] = {name: _HEADERS[name] for name in names}
    return {"responses": responses}


def not_found(order_id: int) -> NoReturn:
    """Raise the 404 of an order that is not there, or not for this key: the two must look the same."""
    raise Problem(404, "order_not_found", f"There is no order {order_id}.")
