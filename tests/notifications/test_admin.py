"""Operators edit templates, checked as they save them, and read the log."""

import pytest
from django.test import Client

from notifications.models import EmailLog, EmailTemplate

pytestmark = pytest.mark.django_db


def test_a_template_that_cannot_be_rendered_is_not_saved(admin_client: Client):
    form = {"name": "offer", "subject": "Hi", "body": "{{ name"}
    assert admin_client.post("/admin/notifications/emailtemplate/add/", form).status_code == 302
    form |= {"name": "broken", "body": "{% if %}"}
    assert admin_client.post("/admin/notifications/emailtemplate/add/", form).status_code == 200
    assert not EmailTemplate.objects.filter(name="broken").exists()


def test_the_log_can_be_read_but_not_edited(admin_client: Client):
    log = EmailLog.objects.create(
        key="receipt-order-1", message_id="<1@x>", template_name="receipt", to="a@b.example"
    )
    page = "/admin/notifications/emaillog/"
    assert "receipt-order-1" in admin_client.get(page).text
    assert admin_client.post(f"{page}{log.pk}/change/", {"to": "x@y.example"}).status_code == 403
    assert admin_client.post(f"{page}{log.pk}/delete/", {"post": "yes"}).status_code == 403
