"""What is asked for in order to place an order: the body of `POST /api/orders`, and a row of an imported file."""

from collections.abc import Iterable
from typing import Annotated, Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator

from orders.pricing import MAX_QUANTITY

#: Largest value of a bigint column: above it the database raises instead of finding nothing.
MAX_ID = 2**63 - 1
MAX_LINES = 100


def field_name(location: Iterable[int | str]) -> str:
    """Where in a document something is wrong: `("items", 0, "sku")` → `items[0].sku`."""
    name = ""
    for part in location:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name


class Strict(BaseModel):
    """A request without fields that are not asked for."""

    # A misspelt optional field must not be dropped in silence.
    model_config = ConfigDict(extra="forbid")


class ItemIn(Strict):
    """One line of an order."""

    sku: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", examples=["WIDGET"])]
    quantity: Annotated[StrictInt, Field(ge=1, le=MAX_QUANTITY, examples=[1])]


class OrderIn(Strict):
    """An order to place. A SKU may stand in one line only."""

    customer_id: Annotated[StrictInt, Field(ge=1, le=MAX_ID, examples=[1])]
    currency: Annotated[str, Field(pattern=r"^[a-z]{3}$", examples=["usd"])]
    payment_method: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,255}$", examples=["pm_card_visa"])]
    items: Annotated[list[ItemIn], Field(min_length=1, max_length=MAX_LINES)]
    receipt_email: Annotated[
        str | None,
        Field(
            default=None,
            max_length=254,
            examples=["ada@example.com"],
            description="Where emails about this order go; the customer's own address when left out.",
            json_schema_extra={"format": "email"},
        ),
    ]

    @field_validator("receipt_email")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        try:
            if value:
                validate_email(value)
        except ValidationError:
            raise ValueError("must be an email address") from None
        return value

    def arguments(self) -> dict[str, Any]:
        """What `place_order` is asked for."""
        return {
            "customer_id": self.customer_id,
            "currency": self.currency,
            "payment_method": self.payment_method,
            "lines": [(item.sku, item.quantity) for item in self.items],
            "receipt_email": self.receipt_email or "",
        }
