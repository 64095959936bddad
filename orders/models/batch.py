"""Long work in pieces: files of orders, and reports."""

from django.db import models
from django.db.models import Q

from orders.models.order import Order


class ImportFile(models.Model):
    """An uploaded CSV of orders. The text lives in the database, so that any worker on any machine can read
    it.

    `rows_staged` is the cursor: that many rows have an `ImportRow` and a message. It only moves forward, by
    compare-and-swap, in the transaction that stages the rows, so that a killed import continues where it
    stopped.
    """

    class Status(models.TextChoices):
        UPLOADED = "uploaded"
        STAGED = "staged"
        REJECTED = "rejected"

    name = models.CharField(max_length=200)
    content = models.TextField()
    # Of an upload: a form that is sent again must not order everything again.
    content_sha256 = models.CharField(max_length=64, blank=True, db_default="", editable=False)
    status = models.CharField(max_length=10, choices=Status, default=Status.UPLOADED)
    rows_staged = models.IntegerField(default=0)
    error = models.CharField(max_length=500, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "import"
        constraints = [
            models.CheckConstraint(condition=Q(rows_staged__gte=0), name="orders_import_rows_not_negative"),
            models.UniqueConstraint(
                fields=["content_sha256"],
                condition=~Q(content_sha256="") & ~Q(status="rejected"),
                name="orders_import_content_once",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ImportRow(models.Model):
    """One record of a file, and the order that came of it."""

    class Status(models.TextChoices):
        PENDING = "pending"
        IMPORTED = "imported"
        REJECTED = "rejected"

    file = models.ForeignKey(ImportFile, on_delete=models.CASCADE, related_name="rows")
    number = models.IntegerField(help_text="1 is the first record below the heading.")
    line = models.IntegerField(null=True, help_text="Where in the file it begins.")
    record = models.JSONField(help_text="Text by column; a list where the fields do not fit the columns.")
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    order = models.OneToOneField(Order, null=True, blank=True, on_delete=models.PROTECT)
    error = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["file", "number"], name="orders_importrow_once_per_file"),
            models.CheckConstraint(
                condition=Q(status="imported", order__isnull=False)
                | (~Q(status="imported") & Q(order__isnull=True)),
                name="orders_importrow_imported_has_order",
            ),
        ]

    def __str__(self) -> str:
        return f"row {self.number} of {self.file_id}"


class Report(models.Model):
    """Orders, revenue and outcomes a day from `first_day` to `last_day` (UTC, both included), as CSV."""

    class Status(models.TextChoices):
        REQUESTED = "requested"
        READY = "ready"

    first_day = models.DateField()
    last_day = models.DateField()
    status = models.CharField(max_length=10, choices=Status, default=Status.REQUESTED)
    content = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    ready_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(first_day__lte=models.F("last_day")), name="orders_report_days_in_order"
            )
        ]

    def __str__(self) -> str:
        return f"{self.first_day} to {self.last_day}"
