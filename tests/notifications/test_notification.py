"""A template is mailed to a user, and the log says so; what cannot be mailed says why."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import ValidationError

import outbox
from dlq.models import DeadLetter
from notifications import models, tasks
from notifications.defaults import TEMPLATES
from notifications.errors import InvalidRecipient, MissingVariable, UnknownTemplate, UnknownUser
from notifications.models import EmailLog, EmailTemplate, User
from notifications.services import EmailService, perform_notification
from outbox.testing import drain, staged

pytestmark = pytest.mark.django_db


class TestPerformNotification:
    @pytest.mark.described("`perform_notification` sends the email to the user")
    def test_sends_email_to_the_user(self, user, template, mailoutbox):
        perform_notification(user.id, "welcome", {})
        (mail,) = mailoutbox
        assert (mail.to, mail.subject, mail.body) == (["alice@example.com"], "Welcome!", "Hello alice.")

    @pytest.mark.described("it writes an `EmailLog`")
    def test_creates_an_email_log_entry(self, user, template, mailoutbox):
        perform_notification(user.id, "welcome", {})
        log = EmailLog.objects.get()
        assert (log.user_id, log.template_name, log.status) == (user.id, "welcome", "sent")
        assert log.sent_at is not None
        assert log.message_id == mailoutbox[0].extra_headers["Message-ID"]

    @pytest.mark.described("it raises for an unknown template and for an unknown user")
    def test_raises_for_an_unknown_template_and_names_it(self, user, mailoutbox):
        with pytest.raises(UnknownTemplate, match="nonexistent"):
            perform_notification(user.id, "nonexistent", {})
        assert mailoutbox == []

    @pytest.mark.parametrize("name", ["wel\x00come", "\udcff"])
    def test_a_name_that_the_database_cannot_hold_is_an_unknown_template(self, user, name):
        with pytest.raises(UnknownTemplate, match="no email template named"):
            perform_notification(user.id, name, {})

    @pytest.mark.described("it raises for an unknown template and for an unknown user")
    def test_raises_for_an_unknown_user_and_names_it(self, template, mailoutbox):
        with pytest.raises(UnknownUser, match="-1"):
            perform_notification(-1, "welcome", {})
        assert not EmailLog.objects.exists()

    def test_every_call_without_a_key_is_its_own_email(self, user, template, mailoutbox):
        """Calls with the same key are one email."""
        perform_notification(user.id, "welcome", {})
        perform_notification(user.id, "welcome", {})
        assert len(mailoutbox) == 2

        first = perform_notification(user.id, "welcome", {}, key="welcome-1")
        second = perform_notification(user.id, "welcome", {}, key="welcome-1")
        assert len(mailoutbox) == 3
        assert (first["status"], second["status"]) == ("sent", "already_sent")
        assert first["message_id"] == second["message_id"] == "<welcome-1@holdfast.example>"

    def test_a_user_without_a_usable_address_is_an_error_that_says_so(self, user, template):
        User.objects.update(email="alice@example.com, bob@example.com")
        with pytest.raises(InvalidRecipient, match="bob"):
            perform_notification(user.id, "welcome", {})

    @pytest.mark.parametrize("key", ["a b", "a@b", "a\nb", ".a", "a..b", "x" * 151])
    def test_a_key_that_does_not_fit_a_message_id_is_refused(self, user, template, key):
        with pytest.raises(ValueError, match="key"):
            perform_notification(user.id, "welcome", {}, key=key)


class TestTemplates:
    def test_the_templates_that_the_code_names_exist(self):
        assert set(EmailTemplate.objects.values_list("name", flat=True)) >= set(TEMPLATES)

    def test_a_variable_that_is_missing_sends_nothing_and_is_named(self, user, mailoutbox):
        EmailTemplate.objects.create(name="offer", subject="Hi", body="Your code: {{ code.value }}")
        with pytest.raises(MissingVariable, match=r"code\.value"):
            perform_notification(user.id, "offer", {})
        assert mailoutbox == []

    def test_a_missing_variable_may_be_asked_for(self):
        template = EmailTemplate(
            subject="Hi", body="{% if code %}Your code: {{ code }}{% else %}None{% endif %}"
        )
        assert template.render({}).body == "None"

    def test_an_edited_template_counts_at_once(self, user, template, mailoutbox):
        perform_notification(user.id, "welcome", {})
        EmailTemplate.objects.update(subject="Hello {{ username }}!", body="Good day, {{ username }}.")
        perform_notification(user.id, "welcome", {})
        assert (mailoutbox[1].subject, mailoutbox[1].body) == ("Hello alice!", "Good day, alice.")

    def test_a_template_is_compiled_once(self, mocker):
        template = EmailTemplate(subject="Hi {{ name }}", body="compiled once: {{ name }}")
        template.render({"name": "Ann"})
        compiled = mocker.patch.object(models._ENGINE, "from_string", wraps=models._ENGINE.from_string)
        assert template.render({"name": "Bob"}).body == "compiled once: Bob"
        assert compiled.call_count == 0

    def test_plain_text_is_not_escaped(self):
        template = EmailTemplate(subject="For {{ name }}", body="{{ name }}")
        assert template.render({"name": "O'Brien & <Sons>"}).body == "O'Brien & <Sons>"

    def test_a_line_break_in_the_subject_adds_no_header(self, user, mailoutbox):
        EmailTemplate.objects.create(name="hello", subject="Hello {{ name }}", body="x")
        perform_notification(user.id, "hello", {"name": "Ann\r\nBcc: everybody@example.com"})
        message = mailoutbox[0].message()
        assert message["Subject"] == "Hello Ann Bcc: everybody@example.com"
        assert message["Bcc"] is None

    def test_a_template_reads_no_file_and_no_other_template(self):
        template = EmailTemplate(subject="Hi", body='{% include "/etc/passwd" %}')
        with pytest.raises(Exception, match="passwd"):
            template.render({})

    def test_a_broken_template_is_refused_when_it_is_edited(self):
        with pytest.raises(ValidationError) as caught:
            EmailTemplate(name="broken", subject="Hi", body="{% if %}").full_clean()
        assert "body" in caught.value.message_dict


class TestOrders:
    ORDER = SimpleNamespace(
        id=42,
        currency="usd",
        total_cents=123405,
        receipt_email="buyer@example.com",
        customer=SimpleNamespace(name="Ann", email="ann@example.com"),
    )

    def test_one_receipt_per_order_with_one_message_id(self, mailoutbox):
        answers = [EmailService.send_receipt(self.ORDER) for _ in range(3)]
        (mail,) = mailoutbox
        assert mail.to == ["buyer@example.com"]
        assert "1,234.05 USD" in mail.body
        assert mail.extra_headers["Message-ID"] == "<receipt-order-42@holdfast.example>"
        assert [answer["status"] for answer in answers] == ["sent", "already_sent", "already_sent"]

    def test_a_confirmation_is_another_mail_than_the_receipt(self, mailoutbox):
        EmailService.send_confirmation(self.ORDER)
        EmailService.send_receipt(self.ORDER)
        assert [mail.extra_headers["Message-ID"].split("-")[0] for mail in mailoutbox] == [
            "<confirmation",
            "<receipt",
        ]

    @pytest.mark.parametrize(
        ("currency", "total"), [("jpy", "for 123,405 JPY."), ("kwd", "for 123.405 KWD.")]
    )
    def test_a_total_has_the_decimals_of_its_currency(self, mailoutbox, currency, total):
        EmailService.send_confirmation(SimpleNamespace(**vars(self.ORDER) | {"currency": currency}))
        assert total in mailoutbox[0].body

    def test_without_a_receipt_address_the_customers_is_used(self, mailoutbox):
        EmailService.send_receipt(SimpleNamespace(**vars(self.ORDER) | {"id": 43, "receipt_email": ""}))
        assert mailoutbox[0].to == ["ann@example.com"]


class TestPasswordReset:
    def test_the_link_sets_a_new_password_and_is_kept_nowhere(self, user, mailoutbox, settings):
        settings.PASSWORD_RESET_URL = "https://shop.example/reset/{uid}/{token}/"
        EmailService.send_password_reset("ALICE@example.com")

        found = re.search(r"https://shop\.example/reset/[^/]+/([^/]+)/", mailoutbox[0].body)
        assert found is not None
        assert default_token_generator.check_token(user, found[1])
        log = EmailLog.objects.values().get()
        assert found[1] not in str(log)

    def test_an_unknown_address_gets_the_same_answer_and_no_email(self, user, mailoutbox):
        """The same answer as a known one."""
        assert EmailService.send_password_reset("nobody@example.com") == []
        User.objects.update(is_active=False)
        assert EmailService.send_password_reset("alice@example.com") == []
        assert mailoutbox == []

    def test_an_account_without_a_password_of_its_own_gets_no_link(self, user, mailoutbox):
        user.set_unusable_password()
        user.save()
        assert EmailService.send_password_reset("alice@example.com") == []


class TestTasks:
    @pytest.mark.described("a job is enqueued to its queue with its arguments (`fake!`)")
    def test_enqueues_to_the_right_queue_with_the_right_arguments(self, user):
        tasks.send_notification.delay(user.id, "welcome")
        tasks.send_password_reset.delay(email="alice@example.com")
        assert [(m.task, m.queue, m.args, m.kwargs) for m in staged()] == [
            ("notifications.tasks.send_notification", "default", [user.id, "welcome"], {}),
            ("notifications.tasks.send_password_reset", "high", [], {"email": "alice@example.com"}),
        ]

    def test_an_unknown_user_is_a_dead_letter_after_one_run(self, template, mailoutbox):
        """The dead letter names the user."""
        tasks.send_notification.delay(999_999, "welcome")
        assert drain() == 1
        dead_letter = DeadLetter.objects.get()
        assert "UnknownUser" in str(vars(dead_letter))
        assert "999999" in str(vars(dead_letter))

    @pytest.mark.described("a job whose id was processed does nothing (`job_processed`, `mark_processed`)")
    def test_a_message_that_is_run_again_sends_nothing_twice(self, user, template, mailoutbox, mocker):
        current = SimpleNamespace(message_id="7f8c", generation=1)
        mocker.patch("outbox.current", return_value=current)
        tasks.send_notification(user.id, "welcome")
        tasks.send_notification(user.id, "welcome")
        assert len(mailoutbox) == 1

    def test_a_mail_server_that_is_down_is_tried_again(self, user, template, mailoutbox, mocker):
        from django.core.mail.backends.locmem import EmailBackend

        send: Any = EmailBackend.send_messages
        failures = iter([ConnectionRefusedError("refused"), TimeoutError("timed out")])

        def flaky(self: Any, messages: Any) -> Any:
            for error in failures:
                raise error
            return send(self, messages)

        mocker.patch.object(EmailBackend, "send_messages", flaky)
        tasks.send_notification.delay(user.id, "welcome")
        drain()

        assert len(mailoutbox) == 1
        assert EmailLog.objects.get().attempts == 3


def test_a_mail_that_another_worker_sends_defers_the_message(user: User, template: EmailTemplate) -> None:
    EmailLog.claim(
        key="welcome-1",
        message_id="<welcome-1@holdfast.example>",
        template_name="welcome",
        to="a@example.com",
        subject="x",
        user_id=None,
    )
    with pytest.raises(outbox.Defer) as caught:
        perform_notification(user.id, "welcome", {}, key="welcome-1")
    assert 0 < caught.value.seconds <= 90
