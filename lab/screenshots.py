"""`python -m lab.screenshots`: takes the pictures that the documentation shows, and writes them to docs/images/.

A stack of its own, an outage of the gateway, and a browser: Debian's Chromium (`apt install chromium`), driven by Playwright
(requirements-dev.txt). It takes about three minutes; `make up` must not run meanwhile.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import time
from collections.abc import Callable

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from lab.collect import Sandbox, dead_letter_kinds
from lab.fleet import Fleet, files
from lab.prepare import ADMIN, introduce_merchants, prepare
from lab.shoppers import Shoppers
from lab.signals import Stopped, raise_on_stop
from lab.stack import Stack, StackError
from lab.stack.processes import free_port
from lab.stack.stack import ROOT, VAR
from lab.up import wait_until_ready

IMAGES = ROOT / "docs" / "images"
WIDTH = 1280
#: Colours of a picture: text and plain areas need no more, and a picture is a tenth of the size.
COLOURS = 64
#: Bytes of a picture: the repository keeps every version of each.
MAX_BYTES = 150_000
#: A hundredth of each delay between two attempts: the last one is made after seconds and not after half an hour.
SETTINGS = {"RETRY_SCALE": "0.01"}
#: Orders while all is well, and during the outage; seconds of each, so that the charts have some samples.
BEFORE, DURING, SECONDS = 60, 30, 50
PATIENCE_S = 180
GROUPS = "/admin/dlq/deadletter/groups/"


def main() -> int:
    """Take all pictures. Returns 0, or 1 with one line that says why not."""
    raise_on_stop()
    try:
        _run()
    except Stopped as stopped:
        return stopped.exit_code
    except StackError as problem:
        print(f"screenshots: {problem}", file=sys.stderr)
        return 1
    return 0


def _run() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise StackError("no Chromium: apt install chromium")
    # Playwright runs an event loop in this thread, and Django refuses its own synchronous calls beside one.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    logs = VAR / "log"
    stack = Stack(VAR / "screenshots", title="lab.screenshots", owner=VAR, fresh=True, logs=logs)
    fleet: Fleet | None = None
    try:
        stack.start()
        port = free_port()
        stack.update_environment(PORT=str(port), SANDBOX_DATA=str(stack.directory / "sandbox"), **SETTINGS)
        prepared = prepare(stack.environment, log=logs / "prepare.log")
        fleet = Fleet(stack.process_environment(), files(logs))
        fleet.start()
        wait_until_ready(port, watch=fleet.watch)
        sandbox = Sandbox(stack.environment["STRIPE_API_BASE"])
        introduce_merchants(sandbox)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(
                base_url=f"http://127.0.0.1:{port}", viewport={"width": WIDTH, "height": 900}
            )
            page.set_default_timeout(PATIENCE_S * 1_000)
            page.goto("/")
            page.get_by_label("Username:").fill(ADMIN)
            page.get_by_label("Password:").fill(str(prepared.admin_password))
            page.get_by_role("button", name="Log in").click()
            _story(page, sandbox, fleet, f"http://127.0.0.1:{port}", prepared.api_key)
            browser.close()
    finally:
        if fleet is not None:
            fleet.stop()
        stack.stop()
        stack.erase()


def _story(page: Page, sandbox: Sandbox, fleet: Fleet, url: str, key: str) -> None:
    _place(BEFORE, SECONDS, fleet, url, key)
    sandbox.set_faults({"gateway": {"error_rate": 1.0}})
    orders = _place(DURING, SECONDS, fleet, url, key)
    others = _other_problems()
    _until(lambda: sum(count for count, _ in dead_letter_kinds()) >= DURING + others, fleet)
    page.goto("/")
    page.locator("#charts canvas").first.wait_for()
    page.wait_for_timeout(1_000)  # the charts are drawn
    _take(page, "control-room", 1_400)
    page.goto(GROUPS)
    _take(page, "dead-letter-groups", 500)
    page.goto(f"/orders/{orders[0]}/")
    _take(page, "journey", 900)

    page.goto(GROUPS)
    page.get_by_role("button", name="Canary of 10").first.click()
    sandbox.set_faults({})
    page.get_by_label("Canary").fill("5")
    page.get_by_label("Rate").fill("2")
    page.get_by_label("Reason").fill("the gateway is back")
    page.get_by_role("button", name=f"Replay {DURING}").click()
    half = page.locator("#progress progress")
    _until(lambda: 30 <= float(half.get_attribute("value") or 0) < 100, fleet)
    _take(page, "replay", 650)


def _other_problems() -> int:
    """Messages that fail for good, for reasons of their own; returns how many."""
    from notifications.tasks import send_notification
    from orders.tasks import process_order

    for user in range(1, 5):
        send_notification.delay(user, "goodbye")
    process_order.delay(order_id=1_000_000)
    return 5


def _place(orders: int, seconds: float, fleet: Fleet, url: str, key: str) -> list[int]:
    """Place orders, evenly over the seconds; returns their ids."""
    accepted: list[int] = []
    for number in range(orders):
        shoppers = Shoppers(url, key, 1, threads=1, seed=number)
        shoppers.start()
        until = time.monotonic() + seconds / orders
        while time.monotonic() < until or not shoppers.finished:
            fleet.watch()
            time.sleep(0.1)
        shoppers.stop()
        accepted += shoppers.accepted
    return accepted


def _until(condition: Callable[[], bool], fleet: Fleet) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > give_up_at:
            raise StackError(f"not within {PATIENCE_S} s; the logs are in {VAR / 'log'}")
        fleet.watch()
        time.sleep(0.2)


def _take(page: Page, name: str, height: int) -> None:
    """Write docs/images/<name>.png, `WIDTH` wide."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    picture = Image.open(io.BytesIO(page.screenshot()))
    path = IMAGES / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {size:,} bytes", flush=True)
    if size > MAX_BYTES:
        raise StackError(f"{path} has {size:,} bytes, {MAX_BYTES:,} are allowed: show less of the page")


if __name__ == "__main__":
    sys.exit(main())
