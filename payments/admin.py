"""Read-only pages of payments. Nothing here is edited by hand: a row that was changed by hand proves nothing."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from common.admin import ReadOnly, ReadOnlyAdmin
from payments.disputes import mark_handled
from payments.gateway import money
from payments.models import CustomerBill, CustomerBillTotal, Dispute, Finding, Invoice, Refund


@admin.register(Invoice)
class InvoiceAdmin(ReadOnlyAdmin):
    list_display = ("number", "order_id", "billing_period", "total", "issued_at", "download")
    list_filter = ("billing_period", "currency")
    search_fields = ("=order__id", "=billing_period")
    list_select_related = False
    exclude = ("pdf",)
    readonly_fields = ("number", "download")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Invoice]:
        return super().get_queryset(request).defer("pdf")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.pdf_view)
        return [path("<int:pk>/pdf/", view, name="payments_invoice_pdf"), *super().get_urls()]

    def pdf_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        invoice = Invoice.objects.filter(pk=pk).first()
        if invoice is None or not self.has_view_permission(request, invoice):
            raise Http404
        name = f'attachment; filename="{invoice.number}.pdf"'
        return HttpResponse(
            bytes(invoice.pdf), content_type="application/pdf", headers={"Content-Disposition": name}
        )

    @admin.display(description="total")
    def total(self, invoice: Invoice) -> str:
        return money(invoice.total_cents, invoice.currency)

    @admin.display(description="PDF")
    def download(self, invoice: Invoice) -> SafeString:
        return format_html(
            '<a href="{}">{}.pdf</a>',
            reverse("admin:payments_invoice_pdf", args=[invoice.pk]),
            invoice.number,
        )


@admin.register(Refund)
class RefundAdmin(ReadOnlyAdmin):
    list_display = (
        "order_id",
        "status",
        "amount",
        "payment_intent_id",
        "gateway_refund_id",
        "created_at",
        "settled_at",
    )
    list_filter = ("status", "currency")
    search_fields = ("=order__id", "=payment_intent_id", "=gateway_refund_id")

    @admin.display(description="amount")
    def amount(self, refund: Refund) -> str:
        return money(refund.amount_cents, refund.currency)


@admin.register(Dispute)
class DisputeAdmin(ReadOnlyAdmin):
    list_display = (
        "dispute_id",
        "order_id",
        "state",
        "gateway_status",
        "reason",
        "amount",
        "due_by",
        "withdrawn_at",
        "reinstated_at",
        "closed_at",
        "handled_at",
    )
    list_filter = ("state", "reason", ("handled_at", admin.EmptyFieldListFilter))
    search_fields = ("=dispute_id", "=order__id", "=payment_intent_id", "=charge_id")
    actions = ("handled",)

    @admin.display(description="amount")
    def amount(self, dispute: Dispute) -> str:
        return money(dispute.amount_cents, dispute.currency)

    @admin.action(description="Mark the selected lost disputes as handled", permissions=["handle"])
    def handled(self, request: HttpRequest, queryset: QuerySet[Dispute]) -> None:
        """Mark lost disputes as handled, which ends their findings."""
        done = sum(mark_handled(dispute, by=request.user.get_username()) for dispute in queryset)
        self.message_user(request, f"{done} lost disputes are marked as handled.")

    def has_handle_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("payments.change_dispute")


class TotalInline(ReadOnly, admin.TabularInline):
    model = CustomerBillTotal
    extra = 0


@admin.register(CustomerBill)
class CustomerBillAdmin(ReadOnlyAdmin):
    list_display = ("customer_id", "billing_period", "created_at")
    list_filter = ("billing_period",)
    search_fields = ("=customer__id",)
    inlines = (TotalInline,)


@admin.register(Finding)
class FindingAdmin(ReadOnlyAdmin):
    list_display = (
        "kind",
        "subject",
        "order_id",
        "detail",
        "action",
        "first_seen_at",
        "last_seen_at",
        "resolved_at",
    )
    list_filter = (("resolved_at", admin.EmptyFieldListFilter), "kind", "action")
    search_fields = ("=subject", "=order_id")
