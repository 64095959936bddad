"""A row that is sent once: claimed with a lease, marked as sent, or released after a failure."""

import uuid
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from django.db import IntegrityError, connection, models, transaction

import outbox
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
        runs, and RuntimeError inside a transaction: a claim that no other connection can see claims nothing.
        """
        new.attempts, new.lease_token = 1, uuid.uuid4()
        for last in (False, True):
            try:
                with transaction.atomic(durable=True):  # around one statement: for the check of `durable`
                    taken = new._take(corrects)
            except IntegrityError:
                # Two inserts at once may meet in another unique index than IDENTITY's. The second time the row is there.
                if last:
                    raise
                continue
            if taken is not None:
                return taken
            row = cls._default_manager.annotate(clock=ClockTimestamp()).get(**new._identity())
            if row.status == cls.Status.SENT:
                return row
            clock: datetime = row.clock  # type: ignore[attr-defined]  # annotated
            if row.lease_until is not None and row.lease_until > clock:
                raise LeaseHeld(str(row), (row.lease_until - clock).total_seconds())
        raise LeaseHeld(str(row), 0.0)  # held at both tries, and free each time when looked at

    def _identity(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.IDENTITY}

    def _take(self, corrects: tuple[str, ...]) -> Self | None:
        """Insert this row claimed, or claim the row of its identity; None when it was sent, or a lease on it runs.

        ON CONFLICT locks the row, also where its WHERE is false, so that claims of one row take turns; each reads the clock
        after its wait for that lock.
        """
        meta, quote = type(self)._meta, connection.ops.quote_name
        fields = [field for field in meta.concrete_fields if not field.primary_key]
        values = {
            field.name: field.get_db_prep_save(field.pre_save(self, add=True), connection) for field in fields
        }
        columns = {field.name: quote(str(field.column)) for field in fields}
        marks = ["clock_timestamp() + %s" if name == "lease_until" else "%s" for name in columns]
        taken = [
            f"{columns[name]} = excluded.{columns[name]}" for name in ("status", "lease_token", *corrects)
        ]
        rows = type(self)._default_manager.raw(
            f"""
            INSERT INTO {quote(meta.db_table)} AS existing ({", ".join(columns.values())})
            VALUES ({", ".join(marks)})
            ON CONFLICT ({", ".join(columns[name] for name in self.IDENTITY)}) DO UPDATE
            SET {", ".join(taken)}, attempts = existing.attempts + 1, lease_until = clock_timestamp() + %s
            WHERE existing.status <> %s
                AND (existing.lease_until IS NULL OR existing.lease_until <= clock_timestamp())
            RETURNING existing.*
            """,
            [*(values | {"lease_until": self.LEASE}).values(), self.LEASE, self.Status.SENT.value],
        )
        return next(iter(rows), None)

    def mark_sent(self, **fields: Any) -> None:
        """Record that it was taken; settles the running message, see `outbox.settling`.

        Not guarded by the lease: a sender that got the confirmation knows, even if its lease has run out.
        """
        with outbox.settling() as settle:
            self._row().exclude(status=self.Status.SENT).update(
                status=self.Status.SENT,
                sent_at=ClockTimestamp(),
                last_error="",
                lease_token=None,
                lease_until=None,
                **fields,
            )
            settle()

    def release(self, *, error: str, **fields: Any) -> None:
        """Give the claim back after a failure, so that the retry need not wait for the lease to run out.

        Guarded by our token: a sender that was frozen past its lease must not release its successor's.
        """
        self._row().filter(lease_token=self.lease_token).update(
            lease_token=None, lease_until=None, last_error=error[:500], **fields
        )

    def _row(self) -> models.QuerySet[Self]:
        return type(self)._default_manager.filter(pk=self.pk)
