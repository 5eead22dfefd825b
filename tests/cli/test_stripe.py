"""``stripe events``, ``replay`` and ``listen-url``: what Stripe told, for a person and for a script."""

import asyncio
from pathlib import Path

import pytest

import meterbook as library
from meterbook import MeterbookError
from meterbook.stripe.events import KINDS
from tests.bills import pays
from tests.cli.commands import ON_ONE_SERVER, Program
from tests.ledger import P1
from tests.stripe.hooks import ACCOUNT, Subscription, deliver

pytestmark = ON_ONE_SERVER

CATALOG = """
[plans.free]
price = "0"
included = "0"
refresh = "0"
rank = 0
limit = "5.00"

[plans.gold]
price = "100"
included = "120"
refresh = "1"
rank = 10
prices = ["price_gold"]
"""


@pytest.fixture
def told(meterbook: Program, database_url: str) -> Program:
    """A subscription whose price the catalog lacks: one event that failed."""

    async def tell() -> None:
        async with library.open(database_url, stripe=ACCOUNT) as book:
            with pytest.raises(MeterbookError):
                await deliver(book, Subscription("sub_u", "user:u", "gold").event("created", P1[0], "evt_gold"))

    asyncio.run(tell())
    return meterbook


def test_what_failed_is_seen_mended_and_applied(told: Program, tmp_path: Path) -> None:
    """Exit code 1 while one has failed; with the price in the catalog its replay applies it, and again it is left as it is."""
    seen = told("stripe", "events")
    assert (seen.code, "price_gold" in seen.out) == (1, True)
    catalog = tmp_path / "plans.toml"
    catalog.write_text(CATALOG)
    assert told("stripe", "replay", "--failed").code == 1
    done = told("stripe", "replay", "evt_gold", "--catalog", str(catalog), "--json")
    assert (done.code, done.data["replayed"][0]["state"]) == (0, "applied")
    again = told("stripe", "replay", "evt_gold", "--catalog", str(catalog))
    assert (again.code, again.out) == (0, "evt_gold applied before\n")
    assert told("stripe", "events", "--json").data["events"][0]["attempts"] == 3
    assert told("stripe", "replay", "--failed").out == "nothing to do: no event waits\n"


@pytest.mark.parametrize("arguments", [("replay",), ("replay", "evt_1", "--failed"), ("events", "--state", "lost")])
def test_what_makes_no_sense_is_refused(told: Program, arguments: tuple[str, ...]) -> None:
    """Exit code 2, and the sentence says what to say instead."""
    done = told("stripe", *arguments)
    assert (done.code, done.out) == (2, "")


def test_an_event_that_nobody_received(told: Program) -> None:
    """Exit code 2 and a stable code."""
    assert told("stripe", "replay", "evt_none", "--json").error["code"] == "unknown_event"


def test_listen_url_names_every_event_and_the_guide_does_too(meterbook: Program, root: Path) -> None:
    """One list: what the code translates, what the command says, what the guide tells to enable."""
    said = Program(None, meterbook.directory)("stripe", "listen-url", "https://billing.example/", "--json").data
    assert (said["url"], said["events"]) == ("https://billing.example/stripe/webhook", list(KINDS))
    guide = (root / "docs" / "guides" / "stripe.md").read_text()
    assert [kind for kind in KINDS if f"`{kind}`" not in guide] == []


def test_an_event_is_dismissed_with_a_reason(told: Program) -> None:
    """What waits waits no more, and says why; a second time there is nothing to do."""
    done = told("stripe", "dismiss", "evt_gold", "--reason", "never sold")
    assert (done.code, done.out) == (0, "evt_gold dismissed\n")
    assert told("stripe", "dismiss", "evt_gold", "--reason", "x", "--json").data["dismissed"] is False
    (kept,) = told("stripe", "events", "--json").data["events"]
    assert (kept["state"], kept["note"]) == ("ignored", "dismissed: never sold")


def test_seats_are_put_into_the_outbox(meterbook: Program, database_url: str) -> None:
    """And the outbox says so, also as `stripe outbox`; what can't be told is refused with a stable code."""

    async def subscribe() -> None:
        async with library.open(database_url) as book:
            await pays(book, "user:u", "team_6000", id="sub_u", stripe_subscription="sub_u")

    asyncio.run(subscribe())
    done = meterbook("stripe", "seats", "sub_u", "7")
    assert (done.code, done.out.startswith("sub_u: Stripe is to be told 7 seats")) == (0, True)
    assert "sub_u is to have 7 seats" in meterbook("stripe", "outbox").out
    assert meterbook("stripe", "outbox").out == meterbook("outbox").out
    assert meterbook("stripe", "dead-letters").code == 0
    assert meterbook("stripe", "seats", "none", "7", "--json").error["code"] == "unknown_entity"
