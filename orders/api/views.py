"""The HTTP API of orders. Errors are problem documents (`orders.api.problems`); the reference is at /api/docs."""

from typing import Annotated, Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from ninja import Header, NinjaAPI, Query
from ninja.errors import AuthenticationError, HttpError, ValidationError
from pydantic import AfterValidator, WithJsonSchema

from idempotency.answers import answer_once
from idempotency.errors import InFlight, KeyReused
from idempotency.key import KEY_PATTERN, MAX_KEY_LENGTH, parse_key
from orders.api import limits
from orders.api.auth import BearerKey, may_see
from orders.api.idempotency import asked_for
from orders.api.journey import journey_of
from orders.api.parsing import MAX_BODY_BYTES, StrictParser
from orders.api.problems import Problem, body_too_large, busy, documented, field_problem, not_found
from orders.api.schemas import CancelIn, JourneyOut, OrderOut, OrderPage, OrderStatus
from orders.models import ApiKey, Order
from orders.schema import MAX_ID, OrderIn, field_name
from orders.selectors import order_page
from orders.services import CannotCancel, PlacementError, cancel_order, place_order, reserve_units

api = NinjaAPI(
    title="Holdfast orders",
    version="1.0.0",
    description="Place an order, follow it, cancel it. Every POST of an order may be repeated with its key.",
    urls_namespace="orders-api",
    auth=BearerKey(),
    parser=StrictParser(),
    # Of the reference and the schema. The check for forged requests would answer every other method with 403.
    docs_decorator=lambda view: csrf_exempt(require_safe(view)),
)

_Key = Annotated[
    str,
    AfterValidator(parse_key),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH, "pattern": KEY_PATTERN}),
]

_ALWAYS = {
    400: "The request cannot be understood; `errors` names the field.",
    401: "The key is missing, unknown or switched off.",
    503: "Overloaded, or the database is unavailable; Retry-After says when to try again.",
}


@api.post(
    "/orders",
    response={202: OrderOut},
    summary="Place an order",
    openapi_extra=documented(
        _ALWAYS
        | {
            409: "Out of stock, or a request with this Idempotency-Key is in flight (Retry-After).",
            413: "The body is too large.",
            415: "The Content-Type is not `application/json` in UTF-8.",
            422: "A field is wrong (`errors` names it), the gateway does not accept such a total (too small, too large, not"
            " a multiple of what it charges in this currency), or the Idempotency-Key was used with another body.",
            429: "Too many orders a second for this key.",
        },
        headers={202: ["Location", "Idempotent-Replayed"], 409: ["Retry-After"]},
    ),
)
def place(
    request: HttpRequest,
    body: OrderIn,
    idempotency_key: Annotated[_Key, Header(..., alias="Idempotency-Key")],
) -> HttpResponse:
    """Answers 202 once the order and its first message are committed together; `Location` is where to follow
    it.

    The Idempotency-Key is a quoted string (`"a key"`), as its draft says, or the same without quotation marks. The same
    key with the same body is answered the same, for as long as the order exists, whichever API key
    of the customer sends it.
    """
    key = _key(request)
    limits.check_rate(key)
    # Before the look-up: an answer to another customer must not be shown to this key.
    if key.customer_id not in (None, body.customer_id):
        raise PlacementError("unknown_customer", "customer_id", f"There is no customer {body.customer_id}.")
    asked, placing = asked_for(key, idempotency_key, body), _Placing(request, body)
    return answer_once(asked, placing.answer, last=placing.reserve)


@api.get(
    "/orders",
    response=OrderPage,
    summary="List orders, newest first",
    openapi_extra=documented(_ALWAYS),
)
def list_orders(
    request: HttpRequest,
    limit: Annotated[int, Query(20, ge=1, le=100)],
    cursor: Annotated[
        int | None, Query(None, ge=1, le=MAX_ID, description="`next_cursor` of the page before.")
    ],
    status: Annotated[OrderStatus | None, Query(None)],
    customer_id: Annotated[int | None, Query(None, ge=1, le=MAX_ID)],
) -> OrderPage:
    """A page of the orders that this key may see."""
    key = _key(request)
    if key.customer_id is not None:
        if customer_id not in (None, key.customer_id):
            return OrderPage(items=[], next_cursor=None)
        customer_id = key.customer_id
    # One more than asked for tells whether there is another page.
    orders = order_page(limit=limit + 1, before_id=cursor, status=status, customer_id=customer_id)
    more = len(orders) > limit
    return OrderPage(
        items=[OrderOut.of(order) for order in orders[:limit]],
        next_cursor=orders[limit - 1].pk if more else None,
    )


@api.get(
    "/orders/{int:order_id}",
    response=OrderOut,
    summary="Get an order",
    openapi_extra=documented(_ALWAYS | {404: "There is no such order, or not for this key."}),
)
def get_order(request: HttpRequest, order_id: int) -> OrderOut:
    """The order as it stands."""
    return OrderOut.of(_visible(request, order_id))


@api.get(
    "/orders/{int:order_id}/journey",
    response=JourneyOut,
    summary="Get everything that happened to an order",
    openapi_extra=documented(_ALWAYS | {404: "There is no such order, or not for this key."}),
)
def get_journey(request: HttpRequest, order_id: int) -> JourneyOut:
    """Transitions, messages with their attempts and errors, invoices, refund and disputes."""
    return journey_of(_visible(request, order_id))


@api.post(
    "/orders/{int:order_id}/cancel",
    response=OrderOut,
    summary="Cancel an order",
    openapi_extra=documented(
        _ALWAYS
        | {
            404: "There is no such order, or not for this key.",
            409: "The order has failed: there is nothing to cancel.",
            413: "The body is too large.",
            415: "The Content-Type is not `application/json` in UTF-8.",
            422: "A field is wrong; `errors` names it.",
        }
    ),
)
def cancel(request: HttpRequest, order_id: int, body: CancelIn | None = None) -> OrderOut:
    """Cancels the order, and has a charge refunded. Cancelling it again answers the same."""
    order = _visible(request, order_id)
    try:
        return OrderOut.of(cancel_order(order_id=order.pk, reason=body.reason if body else ""))
    except CannotCancel as error:
        raise Problem(409, f"order_{error.status}", str(error)) from error


class _Placing:
    """One order that is placed: written and answered first; its units are reserved after that, right before the commit."""

    def __init__(self, request: HttpRequest, body: OrderIn) -> None:
        self._request = request
        self._arguments = body.arguments()
        self._order: Order | None = None

    def answer(self) -> HttpResponse:
        # Only now: what was accepted before is answered whatever the load.
        limits.check_backlog()
        order = self._order = place_order(**self._arguments, reserve=False)
        # Rendered as every other answer is, so that a later GET says the same in the same words.
        response = api.create_response(self._request, OrderOut.of(order).model_dump(), status=202)
        response["Location"] = f"{self._request.path}/{order.pk}"
        return response

    def reserve(self) -> None:
        assert self._order is not None
        reserve_units(self._order, self._arguments["lines"])


def _key(request: HttpRequest) -> ApiKey:
    key = request.auth  # type: ignore[attr-defined]  # set by ninja from what BearerKey returned
    assert isinstance(key, ApiKey)
    return key


def _visible(request: HttpRequest, order_id: int) -> Order:
    order = Order.objects.filter(pk=order_id).first()
    if order is None or not may_see(_key(request), order):
        not_found(order_id)
    return order


@api.exception_handler(Problem)
def _on_problem(request: HttpRequest, error: Problem) -> HttpResponse:
    return error.response(request)


@api.exception_handler(KeyReused)
def _on_key_reused(request: HttpRequest, error: KeyReused) -> HttpResponse:
    errors = [{"field": "Idempotency-Key", "message": "was used with another body"}]
    return Problem(error.status, "idempotency_key_reused", str(error), errors=errors).response(request)


@api.exception_handler(InFlight)
def _on_in_flight(request: HttpRequest, error: InFlight) -> HttpResponse:
    return busy(error.status, "request_in_flight", str(error), retry_after_s=error.retry_after_s).response(
        request
    )


@api.exception_handler(PlacementError)
def _on_placement_error(request: HttpRequest, error: PlacementError) -> HttpResponse:
    status = 409 if error.code == "out_of_stock" else 422
    return field_problem(status, error.code, error.field, str(error)).response(request)


@api.exception_handler(ValidationError)
def _on_validation_error(request: HttpRequest, error: ValidationError) -> HttpResponse:
    errors = [{"field": _field(item["loc"]), "message": item["msg"]} for item in error.errors]
    # A wrong field of the body is a request that was understood (422); a wrong header or parameter is not.
    in_body = all(item["loc"][0] == "body" for item in error.errors)
    detail = "; ".join(f"{item['field']}: {item['message']}" for item in errors[:3])
    return Problem(422 if in_body else 400, "invalid_request", detail, errors=errors).response(request)


@api.exception_handler(AuthenticationError)
def _on_missing_key(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    return Problem(
        401,
        "unauthorized",
        "Send a valid API key as `Authorization: Bearer <key>`.",
        headers={"WWW-Authenticate": 'Bearer realm="orders"'},
    ).response(request)


@api.exception_handler(HttpError)
def _on_http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    # ninja wraps everything that its parser raises; the reason is underneath.
    if isinstance(error.__cause__, Problem):
        return error.__cause__.response(request)
    return Problem(error.status_code, "bad_request", str(error)).response(request)


@api.exception_handler(RequestDataTooBig)
def _on_too_large(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    return body_too_large(MAX_BODY_BYTES).response(request)


def _field(location: tuple[Any, ...]) -> str:
    """`("body", "body", "items", 0, "sku")` → `items[0].sku`."""
    parts = list(location[1:])
    if location[0] == "body" and parts[:1] == ["body"]:
        parts = parts[1:]
    return field_name(parts) or str(location[0])
