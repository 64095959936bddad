"""The Idempotency-Key of any Django view."""

import hashlib
import json
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest, HttpResponse

from idempotency.answers import Asked, answer_once
from idempotency.errors import IdempotencyError, InvalidKey
from idempotency.key import parse_key

View = Callable[..., HttpResponse]


def request_hash(request: HttpRequest) -> str:
    """What makes two requests the same: method, path with query, and the bytes of the body."""
    head = f"{request.method} {request.get_full_path()}\n"
    return hashlib.sha256(head.encode() + request.body).hexdigest()


def idempotent(
    *,
    scope: Callable[[HttpRequest], str],
    client: Callable[[HttpRequest], str] = lambda request: "",
    body_hash: Callable[[HttpRequest], str] = request_hash,
) -> Callable[[View], View]:
    """Run the view once for an `Idempotency-Key`, in a transaction; repeated, it is answered the same from the record.

    `scope` and `client` are functions of the request, for those of `idempotency.answers.Asked`. Check first who may act
    in that scope: `@login_required` goes above this decorator. `body_hash` is for bodies that are not repeated byte by
    byte, such as forms with files.

    Answers problem documents (RFC 9457): 400 without a usable key, 422 for a key that was used with another request, 409 with
    Retry-After while the first is in flight. GET, HEAD and OPTIONS go to the view as they are. What the view answers with 400
    or above, or raises, is rolled back and not kept. Raises TypeError for a view that is a coroutine: transactions are not
    asynchronous.
    """

    def decorate(view: View) -> View:
        if iscoroutinefunction(view):
            raise TypeError(f"{view.__qualname__} is asynchronous; only a synchronous view has a transaction")

        @wraps(view)
        def once(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.method in ("GET", "HEAD", "OPTIONS"):
                return view(request, *args, **kwargs)
            try:
                asked = Asked(
                    scope=scope(request),
                    client=client(request),
                    key=_key(request),
                    body_hash=body_hash(request),
                )
                return answer_once(asked, lambda: view(request, *args, **kwargs))
            except IdempotencyError as error:
                return problem(error)

        return once

    return decorate


def problem(error: IdempotencyError) -> HttpResponse:
    """The error as a problem document."""
    document = {
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": str(error),
    }
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    return HttpResponse(
        json.dumps(document), status=error.status, content_type="application/problem+json", headers=headers
    )


def _key(request: HttpRequest) -> str:
    try:
        return parse_key(request.headers.get("Idempotency-Key"))
    except InvalidKey as error:
        raise InvalidKey(f"The Idempotency-Key {error}.") from None
