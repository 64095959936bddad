"""The id of an HTTP request, by which its log lines, its messages and what they send can be found: `X-Request-ID`."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

import outbox

HEADER = "X-Request-ID"
#: What is accepted from a client or a proxy, since it is copied into logs and headers. A W3C traceparent matches, too.
_WELL_FORMED = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}")


def is_well_formed(request_id: str) -> bool:
    return bool(_WELL_FORMED.fullmatch(request_id))


class RequestId:
    """Middleware that gives each request an id: the one that it brings, if that is well-formed, else a new one.

    It is in the answer, and in every message that the request enqueues (`outbox.in_request`).
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get(HEADER, "")
        request_id = given if is_well_formed(given) else uuid.uuid4().hex
        with outbox.in_request(request_id):
            response = self.get_response(request)
        response[HEADER] = request_id
        return response
