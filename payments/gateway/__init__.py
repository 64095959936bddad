"""The payment gateway: Stripe's PaymentIntents, called in an order of steps that makes a second capture impossible."""

from payments.gateway.client import Charge, PaymentGateway, Refunded
from payments.gateway.currencies import NotChargeable, check_chargeable, money
from payments.gateway.errors import (
    CardDeclined,
    ChargeRefused,
    GatewayBusy,
    GatewayUnavailable,
    InvalidRequest,
)

__all__ = [
    "CardDeclined",
    "Charge",
    "ChargeRefused",
    "GatewayBusy",
    "GatewayUnavailable",
    "InvalidRequest",
    "NotChargeable",
    "PaymentGateway",
    "Refunded",
    "check_chargeable",
    "money",
]
