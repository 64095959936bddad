"""Bodies without a usable length: Django reads as many bytes as Content-Length says, and without it none."""

from collections.abc import Callable
from io import BytesIO

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from orders.api.problems import Problem, body_too_large


class WholeBodies:
    """Middleware that gives a request which was sent in chunks its body; what cannot be read is refused.

    Any program may send its body with `Transfer-Encoding: chunked`, and many do for one that they make as they go. To
    the views the body would be empty: a reason would be lost, and a valid signature not match.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        length = str(request.META.get("CONTENT_LENGTH", ""))
        try:
            if not length and "HTTP_TRANSFER_ENCODING" in request.META:
                _take(request)
            elif length and not (length.isascii() and length.isdigit()):
                # Not every server looks. Django takes it for none, and then fails on it.
                raise Problem(400, "bad_content_length", "The Content-Length is not a number of bytes.")
        except Problem as problem:
            return problem.response(request)
        return self.get_response(request)


def _take(request: HttpRequest) -> None:
    """Read the body to its end, and put it where Django looks; raises a 400, 411 or 413 problem."""
    # Of a server that does not know where the chunks end, reading would wait for ever.
    if not request.META.get("wsgi.input_terminated"):
        raise Problem(411, "length_required", "Send the body with a Content-Length.")
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    try:
        body = request.META["wsgi.input"].read(limit + 1)
    except Exception as error:
        # Whatever the server's reader makes of what is no chunk, an endless trailer, or a client that is gone.
        raise Problem(400, "malformed_chunks", f"The body cannot be read: {error}") from error
    if len(body) > limit:
        raise body_too_large(limit)
    request.META["CONTENT_LENGTH"] = str(len(body))
    request._stream = BytesIO(body)
