"""What can be done with orders. Verbs with keyword-only arguments; each is safe to call again."""

from orders.services.cancelling import CannotCancel, cancel_order
from orders.services.placing import PlacementError, place_order, reserve_units
from orders.services.processing import OrderService

__all__ = ["CannotCancel", "OrderService", "PlacementError", "cancel_order", "place_order", "reserve_units"]
