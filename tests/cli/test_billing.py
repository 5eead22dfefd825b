"""``credits``, ``charges``, ``periods``, ``close``, ``sweep``, ``outbox``: a month billed from the command line."""

import asyncio
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import pytest

from tests.cli.billing_ledger import ADDRESSED, UNADDRESSED, make_month
from tests.cli.commands import ON_ONE_SERVER, Program

pytestmark = ON_ONE_SERVER

PLANS = files("meterbook.catalogs")


@pytest.fixture
def ended(meterbook: Program, database_url: str) -> Program:
    asyncio.run(make_month(database_url))
    return meterbook


def test_a_close_charges_what_credits_do_not_pay(ended: Program) -> None:
    """80.00 − 0.25 refreshed − 30.00 included = 49.75: 25.10 by the grant, 24.65 charged; again, nothing is due."""
    assert ended("close", ADDRESSED, "--json").data == {"entity": ADDRESSED, "closed": 1, "deferred": []}
    assert ended("close", ADDRESSED).out.startswith("nothing is due")
    (charge,) = ended("charges", ADDRESSED, "--period", "last", "--json").data["charges"]
    assert (charge["kind"], charge["credits_cents"], charge["amount_cents"]) == ("final", 2510, 2465)
    assert "24.65" in ended("charges", ADDRESSED).out
    credits_left = ended("credits", ADDRESSED, "--json").data
    assert (credits_left["balance_cents"], credits_left["grants"][0]["remaining_cents"]) == (0, 0)
    (row,) = ended("outbox", ADDRESSED, "--json").data["outbox"]
    assert (row["kind"], row["payload"]["amount_cents"], row["entity"]) == ("charge", 2465, ADDRESSED)
    usage = ended("usage", ADDRESSED, "--last", "--json").data
    assert (usage["billed_cents"], usage["unbilled_cents"], usage["charged_cents"]) == (4975, 0, 2465)


def test_a_bill_is_explained_from_its_rows_to_who_pays(ended: Program) -> None:
    """Before the close unbilled, after it charged; the rows, the refresh and the grant by their names."""
    before = ended("explain", ADDRESSED, "--last", "--json").data
    terms = {term["name"]: term["value"] for term in before["terms"]}
    assert (before["name"], before["value"], terms["unbilled"]) == ("bill", "49.75", "49.75")
    ended("close", ADDRESSED)
    shown = ended("explain", ADDRESSED, "--last").out
    for said in ("bill", "gpt-4o", "grant promo_1", "25.10", "charge #1", "24.65", "0.25"):
        assert said in shown
    assert "unbilled" not in shown


def test_a_close_that_must_wait_says_what_for(ended: Program) -> None:
    """Exit code 1, nothing forgiven, the reason in the outbox; a sweep finds it waiting too, and closes the other."""
    waits = ended("close", UNADDRESSED)
    assert waits.code == 1
    assert "Stripe" in waits.out
    assert ended("close", UNADDRESSED, "--json").data["deferred"][0]["reason"] == "no_stripe_ids"
    swept = ended("sweep", "--json")
    assert (swept.code, swept.data["closed"], swept.data["deferred"]) == (1, 1, 1)
    assert "can't be closed" in ended("outbox", UNADDRESSED).out
    states = [
        each["state"] for each in ended("periods", UNADDRESSED, "--json").data["periods"] if each["kind"] == "dated"
    ]
    assert states == ["open", "closing"]


def test_what_fails_for_one_entity_is_told_and_tried_again(ended: Program) -> None:
    """A plan that the catalog lost: exit code 1 with its name, from `sweep` and from a worker; mended, the month closes."""
    lost = ended.directory / "catalog.toml"
    lost.write_text(PLANS.joinpath("origin.toml").read_text().replace("[plans.pro_6000]", "[plans.other]"))
    swept = ended("sweep", "--catalog", "catalog.toml")
    worked = ended("worker", "--once", "--catalog", "catalog.toml")
    assert (swept.code, worked.code) == (1, 1)
    assert "pro_6000" in swept.out
    assert "failed duty=sweep" in worked.err
    assert ended("sweep", "--json").data["closed"] == 1


def test_a_grant_takes_effect_once(meterbook: Program) -> None:
    """Its name is asked for; the same again grants nothing more; another amount for the name is a conflict."""
    grant = ("credits", "user:ida", "--grant", "25.10", "--id", "promo_1")
    assert meterbook(*grant, "--json").data["balance_cents"] == 2510
    assert meterbook(*grant, "--json").data["balance_cents"] == 2510
    assert meterbook("credits", "user:ida", "--grant", "5", "--id", "promo_1").code == 3
    assert "--id" in meterbook("credits", "user:ida", "--grant", "5").err
    assert meterbook("credits", "user:ida", "--grant", "0.001", "--id", "p").code == 2
    gone = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    expired = meterbook("credits", "user:ida", "--grant", "5", "--id", "late", "--expires", gone, "--json").data
    assert expired["balance_cents"] == 2510


@pytest.mark.parametrize("width", ["80", "120"])
def test_the_tables_of_billing_fit_the_terminal(ended: Program, width: str) -> None:
    """Plain ASCII without a terminal, and no line longer than it is wide."""
    ended("close", ADDRESSED)
    for command in (("charges", ADDRESSED), ("credits", ADDRESSED), ("periods", ADDRESSED), ("outbox",), ("plans",)):
        done = ended(*command, COLUMNS=width)
        assert done.out.isascii(), command
        assert max(map(len, done.out.splitlines())) <= int(width), command
