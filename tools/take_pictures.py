"""Takes the pictures of docs/reference/pictures anew. `meterbook demo --serve --json > served.json &` first, then this with `served.json`.

Needs Chromium in the path. Look at them before they are committed: a picture is a claim as well.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference" / "pictures"
PAYER = "organization:hooli"
PAGES = {
    "overview": "",
    "entity": f"/entity?entity={PAYER}",
    "explain": f"/explain?entity={PAYER}&period=last",
    "billing": "/billing",
    "problems": "/problems",
    "keys": "/keys",
}
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
WIDTH, HEIGHT, PHONE_WIDTH, PHONE_HEIGHT = 1280, 860, 390, 844
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        for scheme in SCHEMES:
            page = _page(browser, scheme, WIDTH, HEIGHT)
            _sign_in(page, told)
            for name, path in PAGES.items():
                page.goto(f"{told['console']}{path}")
                _keep(page, f"{name}-{scheme}")
            page.goto(told["customer"])
            _keep(page, f"customer-{scheme}")
        phone = _page(browser, "light", PHONE_WIDTH, PHONE_HEIGHT)
        _sign_in(phone, told)
        phone.goto(f"{told['console']}{PAGES['entity']}")
        _keep(phone, "entity-phone")
        browser.close()


def _page(browser: Browser, scheme: Scheme, width: int, height: int) -> Page:
    viewport = {"width": width, "height": height}
    return browser.new_context(color_scheme=scheme, viewport=viewport, timezone_id="Europe/Berlin").new_page()  # type: ignore[arg-type]


def _sign_in(page: Page, told: dict[str, str]) -> None:
    page.goto(told["console"])
    page.fill("input[name=key]", told["key"])
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Overview')")


def _keep(page: Page, name: str) -> None:
    """What a person sees first, without scrolling."""
    page.screenshot(path=FOLDER / f"{name}.png")
    print(name)


if __name__ == "__main__":
    main()
