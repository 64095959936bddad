"""Stock moves in one order of products, whatever the path and whatever collation the database has."""

import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest
from django.db import connection, transaction

from orders import effects, lifecycle, stock
from orders.models import ApiKey, Order, Price, Product
from orders.services import OrderService, cancel_order, place_order
from orders.tasks import update_inventory
from outbox.testing import clear
from tests.orders.conftest import Caller, body, settle
from tests.support.database import another_session
from tests.support.locks import wait_until_blocked

#: In the order in which they are created. By code point it is B, a, c; in a dictionary it is a, B, c.
SKUS = ("c", "a", "B")


class _Undone(Exception):
    pass


@pytest.mark.parametrize("path", ["place", "release", "ship"])
def test_every_path_locks_products_in_the_order_of_ids(busy_shop: None, path: str) -> None:
    """And not in that of SKUs."""
    ids = [Product.objects.create(sku=sku, name=sku, stock=10).pk for sku in SKUS]
    Price.objects.bulk_create(Price(product_id=pk, currency="usd", amount_cents=100) for pk in ids)
    order = _place(("B", "c", "a"))
    # A new version of the row lies behind the others: the table's own order is another one now.
    Product.objects.filter(pk=ids[0]).update(name="moved")
    move: Callable[[], object] = {
        "place": lambda: _place(("B", "c", "a")),
        "release": lambda: stock.release(order),
        "ship": lambda: stock.ship(order.pk),
    }[path]
    for position, held in enumerate(ids):
        with another_session() as holder:
            # As an update does; FOR UPDATE would stop the foreign key of a line that is being inserted already.
            holder.cursor().execute("SELECT FROM orders_product WHERE id = %s FOR NO KEY UPDATE", [held])
            thread = threading.Thread(target=_undone, args=(move,))
            thread.start()
            wait_until_blocked(1)
            assert _locked(ids) == ids[: position + 1]
            holder.rollback()
            thread.join(10)
            assert not thread.is_alive()


def test_two_orders_do_not_wait_for_each_others_foreign_keys(
    busy_shop: None,
) -> None:
    """While their lines are inserted."""
    widget = Product.objects.get(sku="WIDGET")
    with another_session() as other:
        # As the INSERT of another order's line does.
        other.cursor().execute("SELECT FROM orders_product WHERE id = %s FOR KEY SHARE", [widget.pk])
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '1s'")
            _place(("WIDGET",))


@pytest.mark.parametrize("path", ["request", "update_inventory", "notify_warehouse", "declined", "cancelled"])
def test_units_move_in_the_last_statement_of_a_transaction(
    busy_shop: None, charge: MagicMock, path: str
) -> None:
    caller, order = Caller(ApiKey.issue("shop")[1]), _place(("WIDGET",))
    if path in ("update_inventory", "notify_warehouse"):
        OrderService.process(order_id=order.pk)
    if path == "declined":
        order = lifecycle.claim(order_id=order.pk, owner="test")
    clear()
    step: Callable[[], object] = {
        "request": lambda: caller.post(body()),
        "update_inventory": lambda: settle(update_inventory, order.pk),
        "notify_warehouse": lambda: effects.ship_stock(order_id=order.pk),
        "declined": lambda: lifecycle.fail(order, reason="declined"),
        "cancelled": lambda: cancel_order(order_id=order.pk),
    }[path]
    transactions: list[tuple[object, list[str]]] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        outermost = connection.atomic_blocks[0] if connection.atomic_blocks else None
        if not transactions or transactions[-1][0] is not outermost:
            transactions.append((outermost, []))
        transactions[-1][1].append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        step()
    moving = [sqls for outermost, sqls in transactions if outermost and any(map(_moves, sqls))]
    assert len(moving) == 1
    assert _moves(moving[0][-1]), moving[0]


def _moves(sql: str) -> bool:
    return "FOR NO KEY UPDATE OF product" in sql


def _place(skus: tuple[str, ...]) -> Order:
    return place_order(
        customer_id=1, currency="usd", payment_method="pm_card_visa", lines=[(sku, 1) for sku in skus]
    )


def _undone(move: Callable[[], object]) -> None:
    try:
        with transaction.atomic():
            move()
            raise _Undone
    except _Undone:
        pass
    finally:
        connection.close()


def _locked(ids: list[int]) -> list[int]:
    """Which of these products somebody holds for an update."""
    with transaction.atomic():
        free = Product.objects.select_for_update(skip_locked=True, no_key=True).filter(pk__in=ids)
        return sorted(set(ids) - {product.pk for product in free})
