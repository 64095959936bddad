"""Default Celery (acknowledged before it runs, results nowhere), and the documents' non-idempotent job."""

from __future__ import annotations

import os
import smtplib
from email.message import EmailMessage
from urllib.parse import urlsplit

import requests
from celery import Celery

from lab.naive.shop import TAX, cursor

app = Celery("naive", broker=os.environ.get("BROKER_URL", "redis://127.0.0.1/0"))
# The one setting that is not the default: without it no task would ever be tried again, and the table would show losses
# only. Retrying is what tutorials add first.
RETRY = {"autoretry_for": (Exception,), "max_retries": 5, "retry_backoff": True, "retry_backoff_max": 10}


@app.task(**RETRY)
def process_order(order_id: int) -> None:
    """Adds the tax, charges, mails. Run twice, it charges twice."""
    with cursor() as rows:
        rows.execute(
            "UPDATE naive_order SET total_cents = total_cents + round(subtotal_cents * %s) WHERE id = %s"
            " RETURNING total_cents, currency, tag",
            [TAX, order_id],
        )
        total_cents, currency, tag = rows.fetchone()
    answer = requests.post(
        f"{os.environ['STRIPE_API_BASE']}/v1/payment_intents",
        data={
            "amount": total_cents,
            "currency": currency,
            "payment_method": "pm_card_visa",
            "payment_method_types[]": "card",
            "confirm": "true",
            "metadata[order_id]": str(order_id),
        },
        headers={"Authorization": f"Bearer {os.environ['STRIPE_API_KEY']}"},
        timeout=10,
    )
    answer.raise_for_status()
    send_receipt(order_id, tag)
    with cursor() as rows:
        rows.execute(
            "UPDATE naive_order SET status = 'completed', payment_id = %s, completed_at = now() WHERE id = %s",
            [answer.json()["id"], order_id],
        )


def send_receipt(order_id: int, to: str) -> None:
    """Mail, directly from the task."""
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = f"Receipt for order {order_id}", "shop@naive.example", to
    mail.set_content("Thank you.")
    server = urlsplit(os.environ["EMAIL_URL"])
    with smtplib.SMTP(server.hostname or "127.0.0.1", server.port or 25, timeout=10) as smtp:
        smtp.send_message(mail)
