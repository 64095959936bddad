"""The plain data that the invariants look at: the database's ledgers beside the outside world's.

The two sides are written by different programs (the app, and the sandbox, which never reads the app's database), so that
agreement is evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Pair = tuple[str, str]

#: Open states of a message, and those in which it has ended.
OPEN = ("scheduled", "blocked", "pending", "published")
ENDED = ("done", "dead", "cancelled")
#: States in which an order has ended.
FINAL = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class OrderLine:
    """One order as the database has it; amounts in minor units. `moves` is its transition log, (from, to) each."""

    id: int
    status: str
    currency: str
    total_cents: int
    processing_count: int
    units: tuple[tuple[str, int], ...]
    tag: str = ""
    fence: int = 0
    moves: tuple[Pair, ...] = ()
    is_shipped: bool = False  # its units have left the shelf

    @property
    def was_completed(self) -> bool:
        """Completed now, or before it was cancelled: what follows from a completion is due in both cases."""
        return self.status == "completed" or self.processing_count > 0


@dataclass(frozen=True)
class Movement:
    """Money that the gateway moved: a capture or a refund."""

    order_id: int
    currency: str
    amount_cents: int


@dataclass(frozen=True)
class Shelf:
    """One product's units, and how many there were before the first order."""

    sku: str
    at_start: int
    stock: int
    reserved: int
    shipped: int


@dataclass(frozen=True)
class ClientRequest:
    """What one client knows of the order it wanted: ok (with the id), fail, or unknown (it gave up waiting)."""

    tag: str
    outcome: str
    order_id: int | None


@dataclass(frozen=True)
class MessageLine:
    """One message as the database has it. `born_of_replay`: it had no row until an operator sent it again."""

    message_id: str
    task: str
    status: str
    correlation_id: str
    generation: int
    attempts: int
    replays: int
    leased: bool
    born_of_replay: bool = False
    tick: str = ""  # of a periodic message: schedule and moment


@dataclass(frozen=True)
class DeadLetterLine:
    """One dead letter: `replayed` and `reopened` count its events; `generation` None is a message without a row.

    `exception`: the type of its last failure, with its module. `edited_as`: the id of the copy that runs in its place.
    """

    message_id: str
    state: str
    generation: int | None
    failures: int
    replayed: int
    reopened: int
    exception: str = ""
    edited_as: str = ""


@dataclass(frozen=True)
class Sample:
    """One look at the running system: units per SKU on all shelves together, and messages ready in each queue.

    `allowed` is what a queue may hold then: the relay's limit, one batch a relay, and what the experiment itself put in.
    """

    at_s: float
    units: Mapping[str, int]
    depths: Mapping[str, int]
    allowed: int
    open_messages: int = 0


@dataclass(frozen=True)
class Ledgers:
    """Everything that the invariants look at. Order ids that are repeated happened more than once."""

    accepted: Sequence[int]  # ids answered with 202
    orders: Sequence[OrderLine]
    invoices: Sequence[int]
    deliveries: Sequence[Pair]  # (event id, merchant) that the database counts as delivered
    shelves: Sequence[Shelf]
    open_messages: int
    unresolved_dead_letters: int
    captures: Sequence[Movement]
    refunds: Sequence[Movement]
    shipments: Sequence[int]
    shipped_units: Sequence[tuple[str, int]]  # of orders that were not cancelled
    crm_records: Sequence[int]
    receipts: Sequence[int]  # one entry a distinct Message-ID
    receipt_copies: int
    webhooks: Sequence[Pair]  # (event id, merchant) that merchants took, each once, in the order of arrival
    unverified_webhooks: int
    # ("order.completed of order 7", merchant): for each end of an order and each subscription that asked for such events,
    # by the orders; and for each delivery that was staged.
    webhooks_due: Sequence[Pair]
    webhooks_staged: Sequence[Pair]
    # What only a longer run collects.
    requests: Sequence[ClientRequest] = ()
    samples: Sequence[Sample] = ()
    messages: Sequence[MessageLine] = ()
    dead_letters: Sequence[DeadLetterLine] = ()
    webhooks_enqueued: Sequence[
        Pair
    ] = ()  # (event id, merchant) in commit order, without those that were replayed
    # Event id -> its order, and the line of the transition log that it tells of; without those that were replayed.
    events: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    reprocessed: frozenset[int] = (
        frozenset()
    )  # orders that reconciliation has set going again, with one more message
    injected: frozenset[str] = frozenset()  # ids of garbage that the experiment itself put into the broker
    tick_s: Mapping[str, float] = field(default_factory=dict)  # schedule -> seconds between two ticks

    def in_status(self, status: str) -> list[OrderLine]:
        return [order for order in self.orders if order.status == status]

    def completed_once(self) -> list[int]:
        """Ids of the orders that were completed at some time."""
        return [order.id for order in self.orders if order.was_completed]
