"""``plans``, ``limits``, ``caps``, ``check``, ``block``: what may be used, for a person and for a script."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

import meterbook as library
from tests.cli.commands import ON_ONE_SERVER, Program

pytestmark = ON_ONE_SERVER


@pytest.fixture
def acme(meterbook: Program, database_url: str) -> Program:
    """An organization on team_6000 with one seat (30.00 included), owned by ada, with bo as a member."""
    asyncio.run(_enrol(database_url))
    return meterbook


async def _enrol(database_url: str) -> None:
    now = datetime.now(UTC)
    async with library.open(database_url) as book:
        await book.put_organization("acme", owner="ada")
        await book.add_member("acme", "bo")
        await book.put_subscription(
            id="s",
            owner="organization:acme",
            plan="team_6000",
            seats=1,
            status="active",
            starts_at=now - timedelta(days=1),
            ends_at=now + timedelta(days=29),
        )


def test_plans_needs_no_ledger(meterbook: Program) -> None:
    """The catalog alone, with what the example says."""
    data = Program(None, meterbook.directory)("plans", "--json").data
    pro = next(plan for plan in data["plans"] if plan["code"] == "pro_6000")
    assert (pro["included"], pro["refresh"], pro["price"]) == ("30.00", "0.25", "25.00")
    assert (data["threshold"], data["smallest_charge"], data["settlement_grace_minutes"]) == ("100.00", "0.50", 60)
    assert not (meterbook.directory / ".meterbook").exists()
    assert "enterprise" in meterbook("plans").out


def test_an_edit_of_the_limit_counts_at_once_and_has_a_minimum(acme: Program) -> None:
    """Half up to cents; below what the plan includes it is refused and says so; a member may not."""
    data = acme("limits", "organization:acme", "--set", "200.005", "--json").data
    assert (data["limit"], data["stored"], data["minimum"], data["status"]) == ("200.01", "200.01", "30.00", "ok")
    low = acme("limits", "organization:acme", "--set", "10")
    member = acme("limits", "organization:acme", "--set", "300", "--by", "bo", "--json")
    assert (low.code, member.code, member.error["code"]) == (2, 2, "limit_refused")
    assert "30" in low.err
    assert "minimum" in acme("limits", "organization:acme").out


def test_a_cap_is_set_seen_and_taken_away(acme: Program) -> None:
    """0 allows a member nothing: the check is denied with its own exit code; none takes the cap away."""
    assert acme("caps", "acme", "bo", "0", "--json").data["members"] == [
        {"user": "bo", "role": "member", "cap": "0.00"}
    ]
    denied = acme("check", "bo", "--json")
    assert (denied.code, denied.data["code"], denied.data["scope"]) == (5, "member_cap_reached", "member")
    assert acme("caps", "acme", "bo", "none").code == 0
    assert acme("check", "bo").code == 0
    assert [each["cap"] for each in acme("caps", "acme", "--json").data["members"]] == [None, None]
    assert acme("caps", "acme", "nobody", "1").code == 2


def test_a_check_says_why_and_explain_shows_the_terms(acme: Program) -> None:
    """Allowed with what is left; after the limit is reached denied with both numbers, and each term of them."""
    assert acme("check", "bo").out.startswith("allowed: 30.00 is left.")
    acme("record", "bo", "--source", "s", "--description", "d", "--amount", "31", "--event-key", "k")
    denied = acme("check", "bo")
    assert denied.code == 5
    assert denied.out.startswith("denied (limit_reached): organization:acme has used 30.75 of 30.00.")
    shown = acme("explain", "user:bo", "--denial").out
    for term in ("denied: limit_reached", "max(stored, included + credits)", "daily refresh", "30.75"):
        assert term in shown
    assert acme("explain", "user:bo", "--denial", "--json").data["value"] == "denied: limit_reached"
    assert acme("explain", "organization:acme", "--denial").code == 2


def test_a_block_stops_everybody_until_it_ends(acme: Program) -> None:
    """Of the organization: every member is denied; the same again changes nothing; another reason is refused."""
    dispute = ("organization:acme", "--reason", "dispute", "--reference", "dp_1")
    assert acme("block", *dispute, "--json").data["changed"] is True
    assert acme("block", *dispute, "--json").data["changed"] is False
    assert acme("check", "bo", "--json").data["code"] == "dispute"
    assert acme("unblock", *dispute).code == 0
    assert acme("check", "bo").code == 0
    refused = acme("block", "organization:acme", "--reason", "mood")
    assert (refused.code, "dispute" in refused.err) == (2, True)
