"""The Idempotency-Key and the receiver of webhooks, each alone, with either driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lifting.project import PSYCOPG2, PSYCOPG3, Combination, made

pytestmark = pytest.mark.proof

either_driver = pytest.mark.parametrize("combination", [PSYCOPG3, PSYCOPG2], ids=str)


@either_driver
def test_a_key_has_one_effect_under_concurrency_and_kills(combination: Combination, tmp_path: Path) -> None:
    """The requests are sent at once, or their sessions killed."""
    with made(tmp_path / "project", "idempotency/", combination=combination) as project:
        project.run("python manage.py check --fail-level WARNING")
        project.run("python manage.py makemigrations --check idempotency")
        at_once = project.python(
            """
            from concurrent.futures import ThreadPoolExecutor
            from threading import Barrier
            from django.contrib.auth.models import Group
            from django.db import connection
            together = Barrier(6)

            def at_once(_):
                try:
                    together.wait(10)
                    return post("name=at_once", **{"Idempotency-Key": "at-once"}).status_code
                finally:
                    connection.close()

            with ThreadPoolExecutor(6) as pool:
                statuses = sorted(set(pool.map(at_once, range(6))))
            result = [statuses, Group.objects.filter(name="at_once").count()]
            """
        )
        assert at_once in ([[201], 1], [[201, 409], 1])
        project.write(
            "killed.py",
            """
import os, signal
from django.contrib.auth.models import Group, User
from django.db.models.signals import post_save
from django.test import Client
post_save.connect(lambda **_: os.kill(os.getpid(), signal.SIGKILL), sender=Group, weak=False)
client = Client(SERVER_NAME="localhost")
client.force_login(User.objects.get(username="reader"))
client.post("/groups", "name=killed", content_type="application/x-www-form-urlencoded",
            headers={"Idempotency-Key": "killed"})
""",
        )
        with pytest.raises(AssertionError, match=r"ended with (137|-9)"):
            project.run('python manage.py shell -c "import killed"')
        after = project.python(
            """
            before = Group.objects.filter(name="killed").count()
            answer = post("name=killed", **{"Idempotency-Key": "killed"}).status_code
            result = [before, answer, Group.objects.filter(name="killed").count()]
            """
        )
        assert after == [0, 201, 1]


@either_driver
def test_an_event_is_stored_and_followed_once_or_not_at_all(combination: Combination, tmp_path: Path) -> None:
    with made(tmp_path / "project", "webhooks/incoming/", combination=combination) as project:
        project.run("python manage.py check --fail-level WARNING")
        project.run("python manage.py makemigrations --check webhooks_incoming")
        bad = project.python(
            r"""
            def signed(text):
                header = stripe.WebhookSignature.generate_signature_header(
                    text, "whsec_of_your_endpoint", int(time.time()))
                return client.post("/webhooks/gateway", text, content_type="application/json",
                                   headers={"Stripe-Signature": header}).status_code

            texts = ('{"id": "evt_2", "type": "x", "n": "\\u0000"}', '{"id": "evt_3", "type": "x", "n": NaN}', "[]")
            result = [*map(signed, texts), IncomingEvent.objects.count()]
            """
        )
        assert bad == [400, 400, 400, 1]
        # The follower fails: the event is not stored, and the provider will come again.
        failed = project.python(
            """
            client.raise_request_exception = False
            Group.objects.create(name="gateway.event_received evt_4")
            first = signed('{"id": "evt_4", "type": "x"}'), IncomingEvent.objects.count()
            Group.objects.all().delete()
            result = [*first, signed('{"id": "evt_4", "type": "x"}'), IncomingEvent.objects.count()]
            """
        )
        assert failed == [500, 1, 200, 2]
