"""The console as people meet it: `meterbook serve` in headless Chromium, with a keyboard, on a phone, in the dark, and without a script."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import meterbook.sync
from tests.http.serving import Served, serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.parametrize("server", ["embedded18"], indirect=True),
]
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
)
PAGES = {
    "overview": "",
    "entity": "/entity?entity=organization:acme",
    "explain": "/explain?entity=organization:acme",
    "billing": "/billing",
    "problems": "/problems",
    "keys": "/keys",
}


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    now = datetime.now(UTC)
    with meterbook.sync.open(database_url) as book:
        book.put_organization("acme", owner="ada")
        book.put_subscription(
            id="sub_1", owner="organization:acme", plan="team_6000", seats=2, status="active",
            starts_at=now - timedelta(days=10), ends_at=now + timedelta(days=20),
        )  # fmt: skip
        book.record_many(
            [
                {
                    "actor": "ada", "source": "workflow" if n % 2 else "copilot", "description": f"model-{n % 7}",
                    "amount": f"0.7{n:03}", "event_key": f"k{n}", "occurred_at": now - timedelta(hours=n),
                }
                for n in range(120)
            ]
        )  # fmt: skip
    with serving(database_url, tmp_path, console_secret="s" * 32) as made:
        yield made


@pytest.fixture
def chromium() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


def sign_in(page: Page, served: Served) -> None:
    page.goto(f"{served.address}/console")
    page.fill("input[name=key]", served.keys["admin"])
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Overview')")


def keep(page: Page, name: str, tmp_path: Path) -> None:
    """A picture for who wants to look."""
    folder = Path(os.environ.get("METERBOOK_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
def test_every_page_fits_and_breaks_no_rule_of_its_own(
    served: Served, chromium: Browser, tmp_path: Path, scheme: Literal["light", "dark"], width: int
) -> None:
    """Nothing is refused by the policy, nothing fails to load, nothing reaches beyond a phone's width; dark is dark."""
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 844})
    page = context.new_page()
    told: list[str] = []
    page.on("console", lambda said: told.append(said.text) if said.type in {"error", "warning"} else None)
    page.on("requestfailed", lambda request: told.append(request.url))
    sign_in(page, served)
    for name, path in PAGES.items():
        page.goto(f"{served.address}/console{path}")
        keep(page, f"{name}-{scheme}-{width}", tmp_path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (brightness(ground) < 64) is (scheme == "dark")
    assert told == []


def test_who_may_log_in(served: Served, chromium: Browser, tmp_path: Path) -> None:
    """A wrong key and one that may not administer are told so, and open nothing; the right one opens the page asked for; out is out."""
    page = chromium.new_context().new_page()
    page.goto(f"{served.address}/console/billing")
    keep(page, "login-light-1280", tmp_path)
    for key, said in (("mb_nonsense", "no key that works here"), (served.keys["record"], "may not administer")):
        page.fill("input[name=key]", key)
        page.click("button:has-text('Sign in')")
        page.wait_for_selector(f".problem:has-text('{said}')")
    page.fill("input[name=key]", served.keys["admin"])
    page.click("button:has-text('Sign in')")
    page.wait_for_selector("h1:has-text('Periods and charges')")
    page.click("button:has-text('Sign out')")
    page.goto(f"{served.address}/console/billing")
    assert page.inner_text("h1") == "Sign in"


def test_dark_is_chosen_once_and_kept(served: Served, chromium: Browser) -> None:
    """Over pages and visits, whatever the system says; each page is dark by its own colours."""
    context = chromium.new_context(color_scheme="light")
    page = context.new_page()
    sign_in(page, served)
    page.click(".theme button")
    page.wait_for_selector(":root[data-theme=dark]")
    for path in PAGES.values():
        page.goto(f"{served.address}/console{path}")
        page.wait_for_selector(":root[data-theme=dark]")
        text, ground = (
            page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
        )
        assert brightness(text) > 200
        assert brightness(ground) < 64


def brightness(colour: str) -> int:
    """The red of `rgb(…)`; the pages' colours are nearly grey."""
    return int(colour.removeprefix("rgb(").split(",")[0])


def test_filter_page_explain_and_export(served: Served, chromium: Browser, tmp_path: Path) -> None:
    """With htmx a filter replaces the list alone, and the address says what is shown, so that going back works."""
    page = chromium.new_context().new_page()
    sign_in(page, served)
    page.fill("input[name=q]", "acme")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('organization:acme')")
    page.evaluate("window.same = true")
    page.fill("#entries input[name=source]", "copilot")
    page.click("#entries button:has-text('Filter')")
    page.wait_for_selector("#entries h2:has-text('60 of this filter')")
    page.click("#entries a:has-text('Older')")
    page.wait_for_selector("#entries a:has-text('Newest')")
    assert page.locator("#entries tbody tr").count() == 10
    assert page.evaluate("window.same") is True
    assert "source=copilot" in page.url
    with page.expect_download() as download:
        page.click("#entries a:has-text('CSV')")
    assert len(Path(download.value.path()).read_text().splitlines()) == 61
    keep(page, "entity-filtered-light-1280", tmp_path)
    page.go_back()
    page.wait_for_selector("#entries a:has-text('Older')")
    page.click(".figures a:has-text('Explain') >> nth=0")
    page.wait_for_selector("h1:has-text('Why the total is')")
    page.click("summary:has-text('copilot') >> nth=0")
    assert page.locator(".leaf:visible").count() > 0
    keep(page, "explain-opened-light-1280", tmp_path)


def test_a_customers_link_and_the_look(served: Served, chromium: Browser, tmp_path: Path) -> None:
    """Made by the form, opened by somebody without a session; the switch wins over the system."""
    page = chromium.new_context(color_scheme="light").new_page()
    sign_in(page, served)
    page.goto(f"{served.address}/console/entity?entity=organization:acme")
    page.click("button:has-text('Make a link')")
    link = page.input_value("textarea")
    customer = chromium.new_context(viewport={"width": 390, "height": 844}).new_page()
    customer.goto(link)
    customer.wait_for_selector("h1:has-text('acme')")
    assert customer.locator("nav[aria-label=Pages]").count() == 0
    assert customer.evaluate("document.documentElement.scrollWidth") <= 390
    keep(customer, "customer-light-390", tmp_path)
    customer.fill("#entries input[name=source]", "copilot")
    customer.click("#entries button:has-text('Filter')")
    customer.wait_for_selector("#entries h2:has-text('60 of this filter')")
    with customer.expect_download() as download:
        customer.click("#entries a:has-text('CSV')")
    assert len(Path(download.value.path()).read_text().splitlines()) == 61
    customer.goto(link)
    customer.click(".theme button")
    customer.wait_for_selector(":root[data-theme=dark]")
    keep(customer, "customer-dark-390", tmp_path)
    assert customer.url == link


def test_everything_is_there_without_a_script(served: Served, chromium: Browser) -> None:
    """Sign in, look, filter, go on a page, sign out: with plain links and forms; the charts are drawn."""
    page = chromium.new_context(java_script_enabled=False).new_page()
    sign_in(page, served)
    assert page.locator("rect.lower").count() > 0
    page.goto(f"{served.address}/console/entity?entity=organization:acme")
    page.fill("#entries input[name=source]", "workflow")
    page.click("#entries button:has-text('Filter')")
    page.wait_for_selector("#entries h2:has-text('60 of this filter')")
    page.click("#entries a:has-text('Older')")
    page.wait_for_selector("#entries a:has-text('Newest')")
    page.click("button:has-text('Sign out')")
    page.wait_for_selector("h1:has-text('Sign in')")


def test_the_keyboard_is_enough(served: Served, chromium: Browser) -> None:
    """The first stop skips to the content; every stop is seen, and has a name."""
    page = chromium.new_context().new_page()
    sign_in(page, served)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(10):
        page.keyboard.press("Tab")
        named, outline = page.evaluate(
            "(() => { const e = document.activeElement; return [e.textContent.trim() || e.getAttribute('aria-label'),"
            " getComputedStyle(e).outlineStyle]; })()"
        )
        assert named
        assert outline == "solid"
