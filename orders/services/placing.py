"""Placing an order: the order, its reservation and its first messages, all of them or nothing."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import EmailField, FilteredRelation, Q

from orders import stock
from orders.events import announce
from orders.lifecycle import log_transition
from orders.models import Customer, Order, OrderItem, Product
from orders.pricing import MAX_QUANTITY, tax_cents
from payments.gateway import NotChargeable, check_chargeable

#: An id of the gateway, for example `pm_card_visa`. It ends up in a URL-encoded form and in our logs.
PAYMENT_METHOD = re.compile(r"[A-Za-z0-9_]{1,255}")


class PlacementError(Exception):
    """The order cannot be placed; nothing was stored. `code` is for machines, `field` is where to look."""

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


@transaction.atomic(savepoint=False)
def place_order(
    *,
    customer_id: int,
    currency: str,
    payment_method: str,
    lines: Sequence[tuple[str, int]],
    receipt_email: str = "",
    reserve: bool = True,
) -> Order:
    """Place an order of `lines`, pairs of SKU and units, and return it.

    When this commits, so do the messages that process and confirm it: an order without them would be a
    promise that no message keeps (transactional outbox). `reserve=False` is for a caller whose transaction writes more: it
    calls `reserve_units` itself, as its last statement. Raises PlacementError: unknown_customer, unknown_sku,
    unknown_currency, invalid_quantity, duplicate_sku, no_items, invalid_payment_method, invalid_email,
    total_too_small, total_too_large, total_not_chargeable, out_of_stock. The caller's transaction, if there is one, must
    then be rolled back: this one is a part of it and has no savepoint of its own.
    """
    _check_texts(payment_method, receipt_email)
    customer = Customer.objects.filter(pk=customer_id).first()
    if customer is None:
        raise PlacementError("unknown_customer", "customer_id", f"There is no customer {customer_id}.")
    products = _products(currency, lines)
    subtotal = sum(products[sku].price_cents * quantity for sku, quantity in lines)
    tax = tax_cents(subtotal, currency)
    try:
        # What is charged is the total: accepted, an amount that the gateway refuses would only fail later.
        check_chargeable(subtotal + tax, currency)
    except NotChargeable as error:
        field = "currency" if error.code == "unknown_currency" else "items"
        raise PlacementError(error.code, field, str(error)) from error

    order = Order.objects.create(
        customer=customer,
        currency=currency,
        subtotal_cents=subtotal,
        tax_cents=tax,
        total_cents=subtotal + tax,
        payment_method=payment_method,
        receipt_email=receipt_email or customer.email,
    )
    OrderItem.objects.bulk_create(
        OrderItem(
            order=order,
            product_id=products[sku].pk,
            quantity=quantity,
            unit_price_cents=products[sku].price_cents,
        )
        for sku, quantity in lines
    )
    log_transition(order.pk, "", Order.Status.PENDING)
    announce("order.placed", order.pk)
    if reserve:
        reserve_units(order, lines)
    return order


def reserve_units(order: Order, lines: Sequence[tuple[str, int]]) -> None:
    """Reserve what was ordered, in the transaction that places the order; raises PlacementError: out_of_stock.

    Its last statement, because the locks on the products are what orders of one SKU wait for, until the commit.
    """
    try:
        stock.reserve(order.pk)
    except stock.NotEnoughUnits as error:
        position = [sku for sku, _ in lines].index(error.sku)
        raise PlacementError(
            "out_of_stock", f"items[{position}].sku", f"{error.sku} is out of stock."
        ) from error


def _check_texts(payment_method: str, receipt_email: str) -> None:
    if not PAYMENT_METHOD.fullmatch(payment_method):
        raise PlacementError("invalid_payment_method", "payment_method", "Invalid payment method id.")
    try:
        if receipt_email:
            EmailField().clean(receipt_email, None)
    except ValidationError:
        raise PlacementError("invalid_email", "receipt_email", "Invalid email address.") from None


class _Priced(NamedTuple):
    """A product with its price in the order's currency."""

    pk: int
    price_cents: int


def _products(currency: str, lines: Sequence[tuple[str, int]]) -> dict[str, _Priced]:
    if not lines:
        raise PlacementError("no_items", "items", "An order needs at least one item.")
    seen: set[str] = set()
    for position, (sku, quantity) in enumerate(lines):
        if sku in seen:
            raise PlacementError(
                "duplicate_sku", f"items[{position}].sku", f"{sku} is listed twice; order it in one line."
            )
        if not 0 < quantity <= MAX_QUANTITY:
            raise PlacementError(
                "invalid_quantity", f"items[{position}].quantity", f"Quantity must be 1 to {MAX_QUANTITY}."
            )
        seen.add(sku)
    # Products without a price in this currency, too: what is wrong with the order is another thing then.
    price = FilteredRelation("prices", condition=Q(prices__currency=currency))
    found = Product.objects.filter(sku__in=seen).annotate(price=price)
    products = {sku: _Priced(*rest) for sku, *rest in found.values_list("sku", "pk", "price__amount_cents")}
    for position, (sku, _) in enumerate(lines):
        if sku not in products:
            raise PlacementError("unknown_sku", f"items[{position}].sku", f"There is no product {sku}.")
    for sku, _ in lines:
        if products[sku].price_cents is None:
            raise PlacementError("unknown_currency", "currency", f"{sku} has no price in {currency}.")
    return products
