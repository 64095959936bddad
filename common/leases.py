"""A row that is sent once: claimed with a lease, marked as sent, or released after a failure."""

import uuid
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from django.db import models, transaction

from common.clock import ClockTimestamp


class LeaseHeld(Exception):
    """Another sender's lease on the row runs for `seconds_left` more."""

    def __init__(self, row: str, seconds_left: float) -> None:
        super().__init__(f"{row} is being sent, the lease ends in {seconds_left:.1f} s")
        self.seconds_left = seconds_left


class SentOnce(models.Model):
    """Base of a log of what was sent: the durable answer to "was it sent?", and the lease of its sender.

    A subclass has the fields that tell one row from another (`IDENTITY`, under a unique constraint) and may have more
    statuses; `LEASE` is longer than its slowest sending, so that a lease that has run out means a sender that is gone.
    """

    class Status(models.TextChoices):
        OPEN = "open"
        SENT = "sent"

    IDENTITY: ClassVar[tuple[str, ...]]
    LEASE: ClassVar[timedelta]

    status = models.CharField(max_length=10, choices=Status.choices, default=Status.OPEN)
    lease_token = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=500, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True

    @classmethod
    def claim_row(cls, new: Self, *, corrects: tuple[str, ...] = ()) -> Self:
        """Take the right to send `new`, for `LEASE`, committed before it returns.

        Returns the row: claimed (status open, with our lease token), or one that was sent before (status sent). Of a row
        that exists the fields that `corrects` names are taken from `new`. Raises LeaseHeld while another sender's lease
        runs, and RuntimeError inside a transaction: a claim that nobody else can see claims nothing.
        """
        with transaction.atomic(durable=True):
            cls._default_manager.bulk_create([new], ignore_conflicts=True)
            # The row lock makes claims of one row take turns; it ends with this short transaction, before the sending.
            row = cls._default_manager.select_for_update().get(
                **{name: getattr(new, name) for name in cls.IDENTITY}
            )
            if row.status == cls.Status.SENT:
                return row
            # A statement of its own: read together with the row, the clock could be from before the wait for its lock.
            clock: datetime = cls._default_manager.values_list(ClockTimestamp(), flat=True).get(pk=row.pk)
            if row.lease_until is not None and row.lease_until > clock:
                raise LeaseHeld(str(row), (row.lease_until - clock).total_seconds())
            for name in corrects:
                setattr(row, name, getattr(new, name))
            row.status, row.attempts = cls.Status.OPEN, row.attempts + 1
            row.lease_token, row.lease_until = uuid.uuid4(), clock + cls.LEASE
            row.save(update_fields=["status", "attempts", "lease_token", "lease_until", *corrects])
            return row

    def mark_sent(self, **fields: Any) -> None:
        """Record that it was taken. Not guarded by the lease: who saw the other side's yes knows, late or not."""
        self._row().exclude(status=self.Status.SENT).update(
            status=self.Status.SENT,
            sent_at=ClockTimestamp(),
            last_error="",
            lease_token=None,
            lease_until=None,
            **fields,
        )

    def release(self, *, error: str, **fields: Any) -> None:
        """Give the claim back after a failure, so that the retry need not wait for the lease to run out.

        Guarded by our token: a sender that was frozen past its lease must not release its successor's.
        """
        self._row().filter(lease_token=self.lease_token).update(
            lease_token=None, lease_until=None, last_error=error[:500], **fields
        )

    def _row(self) -> models.QuerySet[Self]:
        return type(self)._default_manager.filter(pk=self.pk)
