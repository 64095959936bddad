"""A secret that is put into every input of a running `make up` is shown by nothing: page, answer, log, metric, command, export.

Masked are the values of keys whose names say so (`password`, `api_key`, `token`, `card`, ...: `dlq/secret_patterns.py`), at any
depth, in JSON, forms, URLs, headers and free text; what has the looks of a known key or of a card number; and a task's
`secret_arguments`. So each canary stands under such a name, where a name is needed at all. What is typed into a search, or into a
form that is refused, is shown to who typed it. Ids are no secrets: Idempotency-Key, X-Request-ID, correlation id.
"""

from __future__ import annotations

import json
import os
import re
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import redis
import requests

from lab.stack import Stack
from lab.stack.state import read_pairs, write_pairs
from tests.proof.secret_inputs import (
    DESK,
    ORDER,
    Admin,
    Canaries,
    Seen,
    all_dead_letters,
    by_messages,
    by_the_admin,
    by_the_api,
    by_the_desk,
    by_webhooks,
    dead_letters,
)
from tests.support.checkout import Up, copied, up
from tests.support.processes import await_

pytestmark = [pytest.mark.slow, pytest.mark.proof]

#: Pages of one kind that are looked at: of one row in a table of many.
EACH_KIND = 60
#: Dead letters that are looked at by `manage.py dlq show`.
SHOWN = 6


@pytest.fixture(scope="module")
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture(scope="module")
def shop(canaries: Canaries) -> Iterator[Up]:
    with copied() as checkout:
        settings = {
            name: canaries.put_into(name)
            for name in (
                "SECRET_KEY",
                "STRIPE_API_KEY",
                "STRIPE_WEBHOOK_SECRET",
                "METRICS_TOKEN",
                "SENTINEL_PASSWORD",
            )
        }
        settings["SECRET_KEY"] *= 2
        settings["EMAIL_URL"] = f"smtp://shop:{canaries.put_into('EMAIL_URL')}@127.0.0.1:1"
        settings["ALERT_WEBHOOK_URL"] = (
            f"http://127.0.0.1:1/services/{canaries.put_into('ALERT_WEBHOOK_URL')}"
        )
        settings["ALERT_EMAILS"] = "operator@shop.example"
        servers = {name: canaries.put_into(name) for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD")}
        checkout.var.mkdir()
        write_pairs(checkout.var / "secrets.env", servers, title="Chosen by a test.")
        with up(checkout, RETRY_SCALE="0.01", **settings) as running:
            yield running


@pytest.mark.promise(
    "P8",
    "a secret comes in by a request, a header, a webhook, a form, a task's arguments, a setting or a broken message",
    "it is on no page and in no answer, log, metric, command or export; only a user who may see raw messages finds it",
)
def test_no_secret_is_shown_whatever_it_came_in_by(shop: Up, canaries: Canaries) -> None:
    seen = Seen()
    orders = by_the_api(shop, canaries, seen)
    by_webhooks(shop, canaries, seen)
    operator = by_the_admin(shop, canaries, seen)
    by_messages(shop, canaries)
    await_(lambda: len(dead_letters(shop.checkout)) >= 4, "the messages are dead letters", 120)
    by_the_desk(operator, shop, canaries, seen)
    break_everything(shop)

    look_at_the_answers(shop, canaries, orders, seen)
    look_at_every_page(shop, operator, seen)
    look_at_exports_and_commands(shop, operator, seen)
    logs = sorted((shop.checkout.var / "log").glob("*.log"))
    assert {"web", "beat", "relay", "default", "sandbox", "postgres", "redis"} <= {log.stem for log in logs}
    for log in (*logs, shop.checkout.log):
        seen.texts[log.name] = log.read_text(errors="replace")
    assert "could not be sent by webhook" in seen.texts["beat.log"]
    shown = {where: found for where, text in seen.texts.items() if (found := canaries.in_text(text))}
    assert not shown, json.dumps(shown, indent=1)
    it_was_there_to_be_shown(shop, canaries)


def break_everything(shop: Up) -> None:
    """Errors of every connection, with its URL, and an alert that cannot be sent."""
    shop.sandbox.set_faults({"*": {"error_rate": 1.0}})
    headers = {"Authorization": f"Bearer {shop.api_key}"}
    for _ in range(6):
        again = {**headers, "Idempotency-Key": str(uuid.uuid4())}
        assert (
            requests.post(f"{shop.url}/api/orders", json=ORDER, headers=again, timeout=30).status_code == 202
        )
    beat = shop.checkout.var / "log" / "beat.log"
    await_(lambda: "could not be sent by webhook" in beat.read_text(), "an alert could not be sent", 120)
    for pid_of in (redis_pid, postgres_pid):
        kill(pid_of, shop)


def kill(pid_of: Callable[[Up], int], shop: Up) -> None:
    """A server of this stack, which starts it again."""
    killed = pid_of(shop)
    os.kill(killed, signal.SIGKILL)

    def is_another() -> bool:
        with suppress(redis.RedisError, OSError, ValueError, StopIteration):
            return pid_of(shop) != killed
        return False

    await_(is_another, "the server is started again", 60)
    await_(lambda: ready(shop), "all is ready", 120)


def redis_pid(shop: Up) -> int:
    url = read_pairs(shop.checkout.var / "stack.env")["BROKER_URL"]
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        return int(client.info("server")["process_id"])


def postgres_pid(shop: Up) -> int:
    home = Stack(shop.checkout.var, title="test", env_file=None)._postgres_home()
    return int(next(home.rglob("postmaster.pid")).read_text().split()[0])


def ready(shop: Up) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{shop.url}/readyz", timeout=10).status_code == 200
    return False


def look_at_the_answers(shop: Up, canaries: Canaries, orders: list[int], seen: Seen) -> None:
    own = {"Authorization": f"Bearer {shop.api_key}"}
    order = f"/api/orders/{orders[0]}"
    for path in ("/api/orders", order, f"{order}/journey", "/api/openapi.json", "/healthz", "/readyz"):
        assert seen.answer(requests.get(shop.url + path, headers=own, timeout=60)).status_code == 200
    token = next(each for each, name in canaries.inputs.items() if name == "METRICS_TOKEN")
    for path in ("/metrics", "/alerts.json"):
        assert seen.answer(requests.get(shop.url + path, timeout=60)).status_code == 401
        known = {"Authorization": f"Bearer {token}"}
        assert seen.answer(requests.get(shop.url + path, headers=known, timeout=60)).status_code == 200


def look_at_every_page(shop: Up, operator: Admin, seen: Seen) -> None:
    """What is reached by links from the admin and the control room."""
    kinds: Counter[str] = Counter()
    known = {
        "/",
        "/admin/",
        f"{DESK}?all=",
        f"{DESK}groups/",
        "/control-room/state.json",
        "/control-room/charts.json",
    }
    waiting = sorted(known)
    while waiting:
        path = waiting.pop(0)
        kind = re.sub(r"[0-9a-f-]{36}|\d+", "N", path)
        kinds[kind] += 1
        if kinds[kind] > EACH_KIND:
            continue
        answer = seen.answer(operator.get(shop.url + path, timeout=60), path)
        assert answer.status_code == 200, path
        found = {each.replace("&amp;", "&") for each in re.findall(r'href="(/[^"#]*)', answer.text)}
        new = {each for each in found if wanted(each)} - known
        known |= new
        waiting += sorted(new)
    assert len(seen.texts) > 150, sorted(seen.texts)


def wanted(path: str) -> bool:
    """Pages alone, each once: no sorting, no filters, and nobody logs out."""
    page, _, query = path.partition("?")
    is_ours = page.startswith(("/admin/", "/orders/"))
    never = ("/logout/", "/password_change/", "/jsi18n/", "/bytes/")
    return is_ours and not page.endswith(never) and query.partition("=")[0] in ("", "q", "fingerprint")


def look_at_exports_and_commands(shop: Up, operator: Admin, seen: Seen) -> None:
    chosen = re.findall(r'name="_selected_action" value="(\d+)"', all_dead_letters(operator))
    for action in ("export_csv", "export_json_lines"):
        form = {"action": action, "select_across": "1", "index": "0", "_selected_action": chosen}
        exported = seen.answer(operator.send_form(f"{DESK}?all=", **form), action)
        assert exported.headers["Content-Disposition"].startswith("attachment"), exported.text[:500]
        assert "goodbye" in exported.text
    for command in (("dlq", "list"), ("dlq", "export"), ("dlq", "operations", "list"), ("outbox_status",)):
        seen.texts[" ".join(command)] = shop.checkout.manage(*command)
    for each in dead_letters(shop.checkout)[:SHOWN]:
        seen.texts[f"dlq show {each['message_id']}"] = shop.checkout.manage("dlq", "show", each["message_id"])


def it_was_there_to_be_shown(shop: Up, canaries: Canaries) -> None:
    """Who may see raw messages finds the secrets of the outside ones, as they were received."""
    admin = Admin(shop.url, "admin", shop.admin_password)
    rows = sorted(set(re.findall(rf"{DESK}\d+/", all_dead_letters(admin))))
    found = canaries.in_text("".join(admin.get(f"{shop.url}{row}change/").text for row in rows))
    assert {"an outside message", "its card", "a broken message"} <= set(found)
