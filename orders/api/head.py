"""HEAD, which the API's framework does not know: it routes by the methods that an operation names."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from orders.api.problems import API_PREFIX


class HeadAsGet:
    """Middleware that answers HEAD below `/api/` as GET would be, without the body (RFC 9110, 9.3.2).

    Naming HEAD in every operation would list each of them twice in the API's reference.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path.startswith(API_PREFIX):
            return self.get_response(request)
        is_head = request.method == "HEAD"
        if is_head:
            request.method = "GET"
        response = self.get_response(request)
        allowed = response.get("Allow", "").split(", ")
        if "GET" in allowed and "HEAD" not in allowed:
            response["Allow"] = ", ".join([*allowed, "HEAD"])
        if is_head:
            response.setdefault("Content-Length", str(len(response.content)))
            response.content = b""
        return response
