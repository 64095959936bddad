"""The operator's view: orders with their journey, goods, keys, imports, reports and refused syncs."""

from hashlib import sha256
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import connection, transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from common.admin import ReadOnly, ReadOnlyAdmin, link_to_journey
from orders.models import (
    ApiKey,
    Customer,
    DailyTotals,
    ImportFile,
    Order,
    OrderItem,
    OrderTransition,
    Price,
    Product,
    Report,
    SyncErrorLog,
)
from orders.selectors import import_errors, import_progress, in_trouble_only, with_progress, with_trouble
from orders.services import CannotCancel, cancel_order
from orders.tasks import generate_report, process_large_file
from outbox.trouble import DEAD, LATE, PAUSED
from payments.gateway import money
from payments.selectors import disputes_of
from resilience.dedup import enqueue_unique

#: Rows of an import that its page lists as rejected.
REJECTED_SHOWN = 100
#: An import is kept in one row and read by a worker as a whole: larger files are several uploads.
MAX_UPLOAD_BYTES = 10 * 1024 * 1024


class ItemInline(ReadOnly, admin.TabularInline):
    model = OrderItem
    extra = 0
    fields = ("product", "quantity", "unit_price_cents")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[OrderItem]:
        return super().get_queryset(request).select_related("product")


class TransitionInline(ReadOnly, admin.TabularInline):
    model = OrderTransition
    extra = 0
    fields = ("at", "from_status", "to_status", "note", "message_id")
    readonly_fields = fields


class TroubleFilter(admin.SimpleListFilter):
    title = parameter_name = "trouble"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            (DEAD, "a message of it is dead"),
            (LATE, "a message of it is late"),
            (PAUSED, "a message of it waits for a resume"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        value = self.value()
        return in_trouble_only(queryset, value) if value in (DEAD, LATE, PAUSED) else queryset


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin):
    list_display = [
        "id",
        "customer",
        "status",
        "trouble",
        "total_cents",
        "currency",
        "processing_count",
        "created_at",
        "journey",
    ]
    list_filter = ["status", TroubleFilter, "currency", "created_at"]
    search_fields = ["=id", "=payment_intent_id", "=payment_id", "receipt_email"]
    list_select_related = ["customer"]
    inlines = [ItemInline, TransitionInline]
    readonly_fields = ["journey", "trouble", "disputes"]
    actions = ["cancel_selected"]
    # Counting all orders for the pager costs a scan at each click; the filtered count is enough.
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Order]:
        return with_trouble(super().get_queryset(request))

    @admin.display(description="trouble")
    def trouble(self, obj: Any) -> SafeString:
        """Whether a message of it is dead or late, or waits for a resume."""
        return format_html("<strong>{}</strong>", obj.trouble) if obj.trouble else SafeString("")

    @admin.display(description="journey")
    def journey(self, obj: Order) -> str:
        return link_to_journey(obj.pk)

    @admin.display(description="disputes")
    def disputes(self, obj: Order) -> str:
        """What the customer's bank says about the payment."""
        return "\n".join(
            f"{each.dispute_id}: {each.state} ({each.gateway_status}), {each.reason},"
            f" {money(each.amount_cents, each.currency)}"
            for each in disputes_of(obj.pk)
        )

    @admin.action(description="Cancel the selected orders", permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, queryset: Any) -> None:
        """Cancel each order by the service, so that stock, refunds and messages follow."""
        cancelled = 0
        for order_id in queryset.values_list("pk", flat=True):
            try:
                cancel_order(order_id=order_id, reason=f"cancelled by {request.user} in the admin")
                cancelled += 1
            except CannotCancel as error:
                self.message_user(request, str(error), messages.WARNING)
        self.message_user(request, f"{cancelled} orders are cancelled.", messages.SUCCESS)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("orders.change_order")


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):
    list_display = ["id", "name", "email", "created_at"]
    search_fields = ["name", "email"]


class PriceInline(admin.TabularInline):
    model = Price
    extra = 1


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    list_display = ["sku", "name", "stock", "reserved", "shipped"]
    search_fields = ["sku", "name"]
    inlines = [PriceInline]

    def get_readonly_fields(self, request: HttpRequest, obj: Product | None = None) -> list[str]:
        """Units of a product that is on sale move through orders: a form that was opened a minute ago would
        write back a stock that has been sold since.
        """
        return ["stock", "reserved", "shipped"] if obj else ["reserved", "shipped"]


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):
    list_display = ["name", "prefix", "customer", "is_active", "created_at"]
    list_select_related = ["customer"]
    list_filter = ["is_active"]
    fields = ["name", "customer", "is_active"]
    raw_id_fields = ["customer"]

    def save_model(self, request: HttpRequest, obj: ApiKey, form: forms.ModelForm, change: bool) -> None:
        """A new key is made here and shown once: only its hash is stored."""
        if not change:
            obj.renew()
        super().save_model(request, obj, form, change)

    def shown_once(self, obj: ApiKey) -> tuple[str, str]:
        return "The API key", obj.raw


class ImportForm(forms.ModelForm):
    """An upload: the file's text goes into the row."""

    upload = forms.FileField(
        label="CSV file", help_text="Columns: customer_id, currency, payment_method, items, receipt_email."
    )

    class Meta:
        model = ImportFile
        fields: list[str] = []

    def clean_upload(self) -> str:
        """The text of the file; what PostgreSQL cannot store, or is not UTF-8, is refused here."""
        upload = self.cleaned_data["upload"]
        if upload.size > MAX_UPLOAD_BYTES:
            raise forms.ValidationError(f"The file has {upload.size} bytes; the limit is {MAX_UPLOAD_BYTES}.")
        try:
            text = upload.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise forms.ValidationError(f"The file is not UTF-8: {error}.") from error
        if "\x00" in text:
            raise forms.ValidationError("The file contains NUL characters: it is not text.")
        digest = sha256(text.encode()).hexdigest()
        # Of two at once (a double click) the second waits here for the first one's commit: the admin validates in the
        # transaction that saves. Without it the constraint would answer with an error page.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"import-{digest}"])
        before = ImportFile.objects.filter(content_sha256=digest).exclude(status=ImportFile.Status.REJECTED)
        if earlier := before.first():
            raise forms.ValidationError(
                f"This file was uploaded before, as import {earlier.pk} ({earlier.name}): its orders are placed. To have"
                " rows that were rejected placed, upload those rows alone."
            )
        self.instance.name, self.instance.content = upload.name[:200], text
        self.instance.content_sha256 = digest
        return text


@admin.register(ImportFile)
class ImportFileAdmin(admin.ModelAdmin):
    list_display = ["name", "status", "progress", "created_at"]
    readonly_fields = ["name", "status", "progress", "error", "rejected", "created_at"]

    def get_form(
        self, request: HttpRequest, obj: ImportFile | None = None, change: bool = False, **options: Any
    ) -> type[forms.ModelForm]:
        return super().get_form(request, obj, change, **options) if obj else ImportForm

    def get_fields(self, request: HttpRequest, obj: ImportFile | None = None) -> Any:
        return list(self.readonly_fields) if obj else ["upload"]

    def get_readonly_fields(self, request: HttpRequest, obj: ImportFile | None = None) -> list[str]:
        return list(self.readonly_fields) if obj else []

    @transaction.atomic
    def save_model(self, request: HttpRequest, obj: ImportFile, form: forms.ModelForm, change: bool) -> None:
        """Store the file and enqueue its import, both or neither."""
        super().save_model(request, obj, form, change)
        if not change:
            process_large_file.delay(obj.pk)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ImportFile]:
        return with_progress(super().get_queryset(request))

    @admin.display
    def progress(self, obj: ImportFile) -> SafeString:
        """How many rows are done of those that are staged."""
        counts = import_progress(obj)
        done = counts["imported"] + counts["rejected"]
        return format_html(
            '<progress value="{}" max="{}"></progress> {} staged, {} imported, {} rejected, {} waiting',
            done,
            max(counts["staged"], 1),
            counts["staged"],
            counts["imported"],
            counts["rejected"],
            counts["pending"],
        )

    @admin.display(description="rejected rows")
    def rejected(self, obj: ImportFile) -> str:
        """Why rows were rejected, the first of them."""
        return "\n".join(import_errors(obj, limit=REJECTED_SHOWN))


@admin.register(Report)
class ReportAdmin(admin.ModelAdmin):
    list_display = ["first_day", "last_day", "status", "created_at", "ready_at"]
    fields = ["first_day", "last_day", "status", "content"]

    def get_readonly_fields(self, request: HttpRequest, obj: Report | None = None) -> list[str]:
        """The days of a report stay: one that is being made has read them already."""
        return [*(["first_day", "last_day"] if obj else []), "status", "content"]

    @transaction.atomic
    def save_model(self, request: HttpRequest, obj: Report, form: forms.ModelForm, change: bool) -> None:
        """Store the request and enqueue the report, both or neither; saving it again makes it anew, unless that is
        being done already.
        """
        super().save_model(request, obj, form, change)
        if enqueue_unique(generate_report.s(obj.pk)) is None:
            self.message_user(request, "This report is already being made.", messages.WARNING)


@admin.register(SyncErrorLog)
class SyncErrorLogAdmin(ReadOnlyAdmin):
    list_display = ["created_at", "entity_type", "entity_id", "error"]
    list_filter = ["entity_type", "created_at"]
    search_fields = ["=entity_id", "error"]


@admin.register(DailyTotals)
class DailyTotalsAdmin(ReadOnlyAdmin):
    list_display = ["date", "currency", "orders", "revenue_cents"]
    list_filter = ["currency"]
