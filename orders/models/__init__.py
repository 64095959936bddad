"""Tables of the domain, a role a file."""

from orders.models.batch import ImportFile, ImportRow, Report
from orders.models.catalogue import Price, Product
from orders.models.customers import ApiKey, Customer
from orders.models.order import UNSOLD, Order, OrderItem, OrderTransition
from orders.models.records import DailyTotals, SyncErrorLog

__all__ = [
    "UNSOLD",
    "ApiKey",
    "Customer",
    "DailyTotals",
    "ImportFile",
    "ImportRow",
    "Order",
    "OrderItem",
    "OrderTransition",
    "Price",
    "Product",
    "Report",
    "SyncErrorLog",
]
