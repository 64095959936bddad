"""`manage.py reconcile`: what it prints and exits with."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from orders.models import Order
from outbox.testing import drain, staged
from tests.lab.sandbox_fixture import RunningSandbox
from tests.payments.conftest import MakeOrder, capture


def run_command(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("reconcile", *arguments, stdout=out)
    except SystemExit as exit_:
        return int(exit_.code or 0), out.getvalue()
    return 0, out.getvalue()


@pytest.mark.promise(
    "P8", "the gateway's ledger and the orders disagree about money", "a finding, and exit status 1"
)
def test_the_command_says_what_differs_and_exits_1_then_0(
    make_order: MakeOrder, gateway: RunningSandbox
) -> None:
    order = make_order()
    capture(order, status="cancelled")
    Order.objects.update(payment_intent_id=order.payment_intent_id)
    wait = ["--grace", "0"]

    status, text = run_command(*wait)
    assert status == 1
    assert f"captured_not_refunded: order {order.pk}, {order.payment_intent_id}" in text

    drain()
    status, text = run_command(*wait)
    assert (status, "0 open findings, 1 resolved" in text) == (0, True)


def test_the_command_with_dry_run_mends_nothing(make_order: MakeOrder, gateway: RunningSandbox) -> None:
    capture(make_order(), status="cancelled")
    assert run_command("--grace", "0", "--dry-run")[0] == 1
    assert staged() == []


def test_the_command_exits_2_when_the_gateway_is_down(settings: Any, db: None) -> None:
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    with pytest.raises(CommandError, match="could not be read") as caught:
        call_command("reconcile")
    assert caught.value.returncode == 2


@pytest.mark.parametrize("arguments", [("--days", "0"), ("--days", "nan"), ("--grace", "-1")])
def test_the_command_refuses_senseless_windows(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        call_command("reconcile", *arguments)
