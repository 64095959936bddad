"""Where an HTTP request can be found: its id (`X-Request-ID`), its trace (`traceparent`), and its line in the log."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils.encoding import escape_uri_path

import outbox
from dlq.masking import MASK
from outbox.report import trace_id

HEADER, TRACEPARENT = "X-Request-ID", "traceparent"
#: What is accepted from a client or a proxy, since it is copied into logs and headers.
_WELL_FORMED = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}")
#: As https://www.w3.org/TR/trace-context/ has it: the ids of the trace and of the caller's span are not all zero; a version
#: after 00 may have more fields, and there is no version ff.
_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<ids>(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?"
)
_SAMPLED = 1
#: A segment of a path with the looks of a token: long, of digits and letters, and no UUID.
_TOKEN = re.compile(
    r"(?<=/)(?![0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![^/]))(?=[^/]*\d)(?=[^/]*[A-Za-z])[^/]{20,}"
)

log = logging.getLogger(__name__)


def is_well_formed(request_id: str) -> bool:
    return bool(_WELL_FORMED.fullmatch(request_id))


def trace_context(traceparent: str) -> str:
    """This trace context in version 00, the one that is known here; '' for what is none.

    Of a later version it has the ids, and of the flags the one that is known: whether the trace is sampled.
    """
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found["version"] == "00" and found["more"]):
        return ""
    if found["version"] == "00":
        return traceparent
    return f"00-{found['ids']}-{int(found['flags'], 16) & _SAMPLED:02x}"


class RequestId:
    """Middleware that gives each request an id: the one that it brings, if that is well-formed, else a new one.

    It is in the answer, and in every message that the request enqueues (`outbox.in_request`), there beside the request's
    W3C trace context; a request without one gets none. When the request is answered, the log has one line of it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        began = time.monotonic()
        given = request.headers.get(HEADER, "")
        request_id = given if is_well_formed(given) else uuid.uuid4().hex
        with outbox.in_request(request_id, trace_context(request.headers.get(TRACEPARENT, ""))):
            response = self.get_response(request)
            _log(request, response.status_code, request_id, time.monotonic() - began)
        response[HEADER] = request_id
        return response


def _log(request: HttpRequest, status: int, request_id: str, took_s: float) -> None:
    """Log `GET /api/orders/17 200 (0.012 s, request r-1)`, without the query, in which people send secrets.

    Nor with what looks like a token in a path that nothing here serves. The path is percent-encoded, so that no client can
    begin a line of the log. The record has the same under names of its own, and the route, for a formatter that writes
    JSON.
    """
    path = escape_uri_path(request.path)
    match = request.resolver_match
    if match is None and status >= 400:
        # No path of ours has a secret; this one is another site's, or a link of an email that leads nowhere.
        path = _TOKEN.sub(MASK, path)
    log.info(
        "%s %s %d (%.3f s, request %s)",
        *(request.method, path, status, took_s, request_id),
        extra={
            "method": request.method,
            "path": path,
            "route": match.route if match else "",
            "status": status,
            "duration_s": round(took_s, 6),
            "request_id": request_id,
            "trace_id": trace_id(outbox.traceparent()),
        },
    )
