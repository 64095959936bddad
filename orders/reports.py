"""Exact figures, read from the orders themselves."""

import csv
import io
from datetime import datetime, time

from django.db.models import Count, Q, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from orders.models import Order, Report

HEADING = ("day", "currency", "placed", "completed", "failed", "cancelled", "revenue_cents")


def generate(*, report_id: int) -> Report:
    """Write the report's CSV and mark it ready; run again, it replaces it. Raises Report.DoesNotExist."""
    report = Report.objects.get(pk=report_id)
    status = Order.Status
    zone = timezone.get_default_timezone()
    start = datetime.combine(report.first_day, time.min, tzinfo=zone)
    # The last microsecond, which is PostgreSQL's smallest unit: the calendar may have no day after it.
    end = datetime.combine(report.last_day, time.max, tzinfo=zone)
    days = (
        Order.objects.filter(created_at__gte=start, created_at__lte=end)
        .annotate(day=TruncDate("created_at"))
        .values("day", "currency")
        .annotate(
            placed=Count("pk"),
            completed=Count("pk", filter=Q(status=status.COMPLETED)),
            failed=Count("pk", filter=Q(status=status.FAILED)),
            cancelled=Count("pk", filter=Q(status=status.CANCELLED)),
            revenue_cents=Sum("total_cents", filter=Q(status=status.COMPLETED), default=0),
        )
        .order_by("day", "currency")
    )
    sheet = io.StringIO(newline="")
    writer = csv.writer(sheet)
    writer.writerow(HEADING)
    writer.writerows(days.values_list(*HEADING))
    report.content, report.status, report.ready_at = sheet.getvalue(), Report.Status.READY, timezone.now()
    report.save(update_fields=["content", "status", "ready_at"])
    return report
