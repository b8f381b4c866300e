"""The live page in a real browser: a worker, its outputs, and someone who looks around.

Screenshots are kept in tests/acceptance/screenshots, which git ignores.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from model.checkpoint import DriftSettings, renamed
from model.event_log import read_event_log
from model.events import EventType
from model.simulation import START_MS, ShopSettings, simulate, write_simulated
from stream_app import topics
from stream_app.broker import free_port
from stream_app.demo.processes import PageProcess, WorkerProcess
from stream_app.lane.reading import read_records
from stream_app.log_records import LogRecord, log_records
from stream_app.settings import Settings
from stream_app.ui.history import MAX_DRIFTS
from stream_app.ui.workers import Workers
from tests.checkpoints import named_checkpoint
from tests.conftest import own_settings
from tests.workers import (
    FASTER,
    committed_events,
    overrides_of,
    send_all,
    start_worker,
    wait_until,
)

SCREENSHOTS = Path(__file__).with_name("screenshots")
WAIT_MS = 60_000
"""Bound of every wait in the browser; no verdict depends on it."""
TOKEN = "a-token-of-this-test"
EVIL = "<img src=x onerror=alert(1)>"
"""A user id that would run a script, were it not shown as text."""
AREA = '.chart svg path[fill^="#"]'
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@dataclass(frozen=True)
class Shop:
    """A shop whose events have been applied, and its page."""

    address: str
    worker: WorkerProcess
    workers: Workers
    settings: Settings
    drifts: int


def of_an_evil_user(number: int) -> LogRecord:
    time_ms = START_MS + number
    value = (
        f'{{"event_id":"evil-{number}","user_id":"{EVIL}","timestamp":{time_ms},'
        f'"item_id":"{EVIL}","category":"{EVIL}"}}'
    )
    return LogRecord(EventType.CLICK, EVIL.encode(), value.encode(), time_ms, -1)


@pytest.fixture
def shop(kafka: str, tmp_path: Path) -> Iterator[Shop]:
    home = tmp_path
    settings = own_settings(kafka, home / "data")
    write_simulated(simulate(ShopSettings(users=60, days=60, seed=3)), home / "shop.parquet")
    log = read_event_log(home / "shop.parquet")
    made = named_checkpoint(log.items, [*log.categories, EVIL])
    checkpoint = renamed(replace(made, drift=DriftSettings(threshold=2.2)))
    topics.create(settings)
    overrides = {**overrides_of(settings, checkpoint, home), **FASTER, "http_token": TOKEN}
    worker = start_worker(overrides, home)
    url = f"http://127.0.0.1:{worker.port}"
    page: PageProcess | None = None
    try:
        page = PageProcess(overrides, home, [url], free_port())
        page.wait_until_ready()
        evil = [of_an_evil_user(number) for number in range(6)]
        broken = replace(evil[0], value=b"{no json")
        sent = send_all(settings, [*log_records(log), *evil, broken])
        wait_until(lambda: committed_events(settings) >= sent, worker)
        drifts = sum(
            len(read_records(settings, settings.drift_topic, partition))
            for partition in range(settings.partitions)
        )
        yield Shop(page.address, worker, Workers((url,), TOKEN), settings, drifts)
        page.check_alive()
        assert not page.stop(), page.last_line()
        assert "Traceback" not in page.log_file.read_text()
    finally:
        for process in (worker, page):
            if process is not None:
                process.kill()
        topics.delete(settings)


@pytest.fixture
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        sentence = "no chromium; on Debian install the package chromium"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    with sync_playwright() as playwright:
        yield from _browser(playwright, found)


def _browser(playwright: Playwright, path: str) -> Iterator[Browser]:
    # Chromium asks root, and containers without user namespaces, to do without its sandbox.
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    yield browser
    browser.close()


@contextmanager
def visit(browser: Browser, shop: Shop, **how: Any) -> Iterator[Page]:
    """The page in a browser of its own; nothing may leave this machine or fail in the console."""
    trouble: list[str] = []
    asked: set[str | None] = set()
    context = browser.new_context(**how)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("request", lambda request: asked.add(urlsplit(request.url).hostname))
    page.on("websocket", lambda socket: asked.add(urlsplit(socket.url).hostname))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on(
        "console",
        lambda said: trouble.append(said.text) if said.type in ("error", "warning") else None,
    )
    page.goto(shop.address)
    rows = page.locator(".rows button")
    expect(rows).to_have_count(min(shop.drifts, MAX_DRIFTS), timeout=WAIT_MS)
    yield page
    context.close()
    assert asked == {"127.0.0.1"}
    assert trouble == []


def shows(page: Page, user: str) -> None:
    """Waits for a user's heading and charts."""
    expect(page.locator("#user-heading")).to_have_text(user, timeout=WAIT_MS)
    expect(page.locator(f".user {AREA}").first).to_be_visible(timeout=WAIT_MS)
    expect(page.locator(".items li").first).to_be_visible(timeout=WAIT_MS)


def says_without(page: Page, shop: Shop, user: str, asked: int) -> None:
    """Waits for what the model would say without the last events, as the worker says it."""
    change = page.locator(".changes")
    shorter = shop.workers.user(user, asked)
    assert shorter is not None
    if shorter.without is None:
        expect(change).to_be_hidden()
    elif shorter.without == 0:
        expect(change).to_contain_text("keeps no state")
    else:
        events = f"last {shorter.without} events" if shorter.without > 1 else "last event"
        expect(change).to_contain_text(f"As if the {events} had not been.")
        expect(change.locator("tbody tr").first).to_be_visible()


def keep(page: Page, name: str) -> None:
    """A screenshot of the whole page."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.mouse.move(0, 0)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def test_the_journey_at_a_desk_on_a_phone_and_with_the_keyboard(
    chromium: Browser, shop: Shop
) -> None:
    # one test, as the shop behind it takes longer than the journey
    from_the_flow_to_a_drift_and_its_reasons(chromium, shop)
    on_a_phone_nothing_sticks_out(chromium, shop)
    with_the_keyboard_alone_in_the_dark(chromium, shop)
    without_a_worker_the_outputs_are_still_there(chromium, shop)


def from_the_flow_to_a_drift_and_its_reasons(chromium: Browser, shop: Shop) -> None:
    with visit(chromium, shop, **DESKTOP) as page:
        expect(page.locator(".troubles .trouble")).to_have_count(0)
        expect(page.locator(".tile", has_text="dead letters")).to_contain_text("invalid_json 1")
        expect(page.locator(".tile", has_text="lag")).to_contain_text("0")
        expect(page.locator(".tile", has_text="1 of 1 worker")).to_be_visible()
        expect(page.locator(".legend li")).to_have_count(6)
        expect(page.locator(f".overview {AREA}").first).to_be_visible()

        row = page.locator(".rows button").nth(1)
        user = row.locator("b").inner_text()
        row.click()
        shows(page, user)
        expect(page.locator("#user-heading")).to_be_focused()
        assert page.url.endswith(f"?user={user}")
        expect(page.locator(".items li .note").first).not_to_be_empty()
        expect(page.locator(".user tbody tr").first).to_be_visible()
        expect(page.locator(".plain")).to_contain_text(f"{shop.settings.app_id}.")

        # the mark of the drift, hovered
        drift = page.locator('.user .chart svg path[fill="var(--drift)"]').first
        drift.hover()
        expect(page.locator(".user .chart")).to_contain_text("Evidence")
        keep(page, "desktop")

        says_without(page, shop, user, 3)

        page.get_by_label("User id").fill(EVIL)
        page.get_by_role("button", name="Show").click()
        shows(page, EVIL)
        expect(page.locator(".likings")).to_contain_text(EVIL)
        page.reload()
        shows(page, EVIL)
        page.get_by_label("User id").fill("nobody")
        page.get_by_role("button", name="Show").click()
        expect(page.locator(".summary")).to_contain_text("No output of this user was read")


def on_a_phone_nothing_sticks_out(chromium: Browser, shop: Shop) -> None:
    with visit(chromium, shop, **PHONE) as page:
        row = page.locator(".rows button").nth(2)
        user = row.locator("b").inner_text()
        row.tap()
        shows(page, user)
        widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1] == 390
        keep(page, "phone")


def with_the_keyboard_alone_in_the_dark(chromium: Browser, shop: Shop) -> None:
    with visit(chromium, shop, **DESKTOP, color_scheme="dark") as page:
        press_tab_until(page, ".rows button")
        press_tab(page)
        user = page.locator(".rows button").nth(1).locator("b").inner_text()
        page.keyboard.press("Enter")
        shows(page, user)
        expect(page.locator("#user-heading")).to_be_focused()
        says_without(page, shop, user, 3)
        if page.locator("#without").is_visible():
            press_tab_until(page, "#without")
            page.keyboard.press("ArrowRight")
            expect(page.locator(".without output")).to_have_text("4")
            says_without(page, shop, user, 4)
        keep(page, "keyboard-dark")
        press_tab_until(page, "#user-id", key="Shift+Tab")
        page.keyboard.type(EVIL)
        page.keyboard.press("Enter")
        shows(page, EVIL)


def without_a_worker_the_outputs_are_still_there(chromium: Browser, shop: Shop) -> None:
    shop.worker.stop()
    with visit(chromium, shop, **DESKTOP) as page:
        expect(page.locator(".troubles")).to_contain_text("No worker answers at")
        expect(page.locator(".tile", has_text="0 of 1 worker")).to_be_visible()
        row = page.locator(".rows button").nth(3)
        user = row.locator("b").inner_text()
        row.click()
        shows(page, user)
        expect(page.locator(".user > .trouble")).to_contain_text("No worker answers at")


def press_tab(page: Page, key: str = "Tab") -> None:
    """Moves the focus on, to something that shows that it has it."""
    page.keyboard.press(key)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline not in ("none", ""), page.evaluate("document.activeElement.outerHTML")


def press_tab_until(page: Page, selector: str, key: str = "Tab") -> None:
    """Moves the focus on until it is where it has to be; each stop has a visible focus."""
    for _ in range(80):
        press_tab(page, key)
        if page.evaluate(f"document.activeElement.matches({selector!r})"):
            return
    raise AssertionError(f"the keyboard never gets to {selector}")
