"""Every input by which a secret may come into a running system, each with a canary of its own (`tests/proof/test_secrets.py`)."""

from __future__ import annotations

import json
import re
import secrets
import time
import uuid
from typing import Any

import requests
import stripe
from kombu import Connection

from lab.stack.state import read_pairs
from tests.support.checkout import Checkout, Up

DESK = "/admin/dlq/deadletter/"
ORDER = {
    "customer_id": 1,
    "currency": "usd",
    "payment_method": "pm_card_visa",
    "items": [{"sku": "WIDGET", "quantity": 1}],
    "receipt_email": "ada@shop.example",
}


class Canaries:
    """Secrets by the input that each was put into."""

    def __init__(self) -> None:
        self.inputs: dict[str, str] = {}

    def put_into(self, name: str) -> str:
        """A new one. It has the looks of nothing that masking knows."""
        made = f"canary{secrets.token_hex(20)}"
        self.inputs[made] = name
        return made

    def in_text(self, text: str) -> list[str]:
        """The inputs of those that are shown, or the beginning of which is."""
        begun = set(re.findall(r"canary[0-9a-f]{8,40}", text))
        return sorted(
            {name for each, name in self.inputs.items() if any(each.startswith(it) for it in begun)}
        )


class Seen:
    """Everything that the system has shown, by where."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def answer(self, answer: requests.Response, where: str = "") -> requests.Response:
        asked = answer.request
        headers = "\n".join(
            f"{name}: {value}" for name, value in answer.headers.items() if name != "Set-Cookie"
        )
        place = where or f"{asked.method} {asked.path_url.partition('?')[0]} {len(self.texts)}"
        self.texts[place] = f"{headers}\n{answer.text}"
        return answer


def by_the_api(shop: Up, canaries: Canaries, seen: Seen) -> list[int]:
    """Orders that were accepted."""
    url, own = f"{shop.url}/api/orders", {"Authorization": f"Bearer {shop.api_key}"}

    def post(body: Any, *, query: str = "", **headers: str) -> requests.Response:
        sent = {"Idempotency-Key": str(uuid.uuid4()), "Content-Type": "application/json", **own, **headers}
        data = body if isinstance(body, str) else json.dumps(body)
        return seen.answer(requests.post(url + query, data=data, headers=sent, timeout=30))

    wrong = canaries.put_into("Authorization of another API key")
    assert post(ORDER, Authorization=f"Bearer {wrong}").status_code == 401
    assert post(ORDER, Authorization=f"Basic {wrong}").status_code == 401
    more = {
        "password": canaries.put_into("a field that does not exist"),
        "card": {"number": canaries.put_into("a field in a field")},
    }
    assert post({**ORDER, **more}).status_code in (400, 422)
    assert (
        post(
            {**ORDER, "items": [{"sku": "WIDGET", "quantity": {"token": canaries.put_into("a field")}}]}
        ).status_code
        == 422
    )
    assert post(f'{{"password": "{canaries.put_into("a body that is no JSON")}", ').status_code == 400
    assert post(f'{{"secret": 1, "secret": "{canaries.put_into("a key given twice")}"}}').status_code == 400
    accepted = post(
        ORDER,
        query=f"?api_key={canaries.put_into('a query')}",
        Cookie=f"sessionid={canaries.put_into('a cookie')}",
        **{"X-Api-Key": canaries.put_into("a header")},
    )
    assert accepted.status_code == 202
    seen.answer(
        requests.get(f"{shop.url}/no/page?token={canaries.put_into('a query of no page')}", timeout=30)
    )
    return [accepted.json()["id"]]


def by_webhooks(shop: Up, canaries: Canaries, seen: Seen) -> None:
    url = f"{shop.url}/webhooks/gateway"
    secret = next(each for each, name in canaries.inputs.items() if name == "STRIPE_WEBHOOK_SECRET")

    def post(body: str, header: str = "") -> requests.Response:
        header = header or stripe.WebhookSignature.generate_signature_header(body, secret, int(time.time()))
        headers = {"Stripe-Signature": header, "Content-Type": "application/json"}
        return seen.answer(requests.post(url, data=body, headers=headers, timeout=30))

    intent = {
        "object": "payment_intent",
        "id": "pi_of_nothing",
        "client_secret": canaries.put_into("client_secret of an event"),
        "metadata": {"order_id": "999999", "password": canaries.put_into("metadata of an event")},
    }
    event = {"id": "evt_canary", "type": "payment_intent.succeeded", "data": {"object": intent}}
    assert post(json.dumps(event)).status_code == 200
    assert post(json.dumps(event), f"t=1,v1={canaries.put_into('a wrong signature')}").status_code == 400
    assert post(f'{{"token": "{canaries.put_into("an event that is no JSON")}", ').status_code == 400


STAFF = """
from django.contrib.auth.models import Permission, User
user = User.objects.get(username="operator")
user.is_staff = True
user.save()
user.user_permissions.set(Permission.objects.exclude(codename="view_raw_deadletter"))
"""


class Admin(requests.Session):
    """A session of the admin; its forms are sent with their token."""

    def __init__(self, url: str, user: str, password: str) -> None:
        super().__init__()
        self.url = url
        self.get(f"{url}/admin/login/")
        entered = self.send_form("/admin/login/", username=user, password=password, next="/admin/")
        self.entered = entered.history != []

    def send_form(self, path: str, **fields: Any) -> requests.Response:
        form = {"csrfmiddlewaretoken": self.cookies["csrftoken"], **fields}
        return self.post(self.url + path, data=form, headers={"Referer": self.url + path}, timeout=60)


def by_the_admin(shop: Up, canaries: Canaries, seen: Seen) -> Admin:
    """A member of the staff, who may do everything but see raw messages."""
    assert not Admin(shop.url, "admin", canaries.put_into("a wrong password")).entered
    admin = Admin(shop.url, "admin", shop.admin_password)
    assert admin.entered
    password = canaries.put_into("the password of a new user")
    made = {"username": "operator", "usable_password": "true", "password1": password, "password2": password}
    seen.answer(admin.send_form("/admin/auth/user/add/", **made))
    hook = f"https://shop.example/hook?token={canaries.put_into('the URL of a subscription')}"
    added = admin.send_form("/admin/webhooks/subscription/add/", customer_id="1", url=hook, is_active="on")
    assert added.status_code == 200
    shop.checkout.manage("shell", "-v", "0", "-c", STAFF)
    operator = Admin(shop.url, "operator", password)
    assert operator.entered
    return operator


def by_messages(shop: Up, canaries: Canaries) -> None:
    context = {
        "password": canaries.put_into("an argument"),
        "more": [{"api_key": canaries.put_into("an argument in an argument")}],
        "text": f"log in with password={canaries.put_into('a text in an argument')}",
    }
    shop.checkout.manage(
        *("shell", "-v", "0", "-c"),
        f"from notifications.tasks import send_notification; send_notification.delay(1, 'goodbye', context={context!r})",
    )
    mine = {
        "password": canaries.put_into("an outside message"),
        "card": {"number": canaries.put_into("its card")},
    }
    body = json.dumps([[], mine, {}])
    headers = {"task": "invented.by.somebody", "id": str(uuid.uuid4()), "lang": "py"}
    headers["authorization"] = canaries.put_into("a header of an outside message")
    headers["argsrepr"] = f"('{canaries.put_into('argsrepr of an outside message')}',)"
    broken = f'{{"token": "{canaries.put_into("a broken message")}", '
    with Connection(read_pairs(shop.checkout.var / "stack.env")["BROKER_URL"]) as broker:
        for sent, content_type in (
            (body, "application/json"),
            (broken, "application/json"),
            (body.replace("password", "secret"), "application/x-python-serialize"),
        ):
            broker.Producer().publish(
                sent.encode(),
                exchange="",
                routing_key="default",
                headers={**headers, "id": str(uuid.uuid4())},
                content_type=content_type,
                content_encoding="utf-8",
            )


def dead_letters(checkout: Checkout) -> list[dict[str, Any]]:
    return [json.loads(line) for line in checkout.manage("dlq", "export", "--state", "open").splitlines()]


def by_the_desk(operator: Admin, shop: Up, canaries: Canaries, seen: Seen) -> None:
    """What an operator types: a note, a reason, and another value for a secret argument."""
    page = operator.get(f"{shop.url}{DESK}groups/").text
    fingerprint = re.findall(r'name="note" value="([^"]+)"', page)[0]
    note = f"the password: {canaries.put_into('a note')}"
    seen.answer(operator.send_form(f"{DESK}groups/", note=fingerprint, **{f"note:{fingerprint}": note}))
    pages = {
        re.sub(r"/change/.*", "/", each)
        for each in re.findall(rf"{DESK}\d+/change/", all_dead_letters(operator))
    }
    edited = next(each for each in pages if "goodbye" in operator.get(f"{shop.url}{each}edit/").text)
    form = operator.get(f"{shop.url}{edited}edit/").text
    failures = re.findall(r'name="failures" value="(\d+)"', form)[0]
    fields = {
        "argument:user_id": "1",
        "argument:template_name": '"goodbye"',
        "argument:context": json.dumps({"password": canaries.put_into("an edit")}),
        "failures": failures,
        "reason": f"the token={canaries.put_into('a reason')}",
    }
    sent = seen.answer(operator.send_form(f"{edited}edit/", **fields))
    assert "The edited copy was sent." in sent.text, sent.text


def all_dead_letters(operator: Admin) -> str:
    return operator.get(f"{operator.url}{DESK}?all=").text
