"""Who pays (§4): the ranking of candidates, and what changes it."""

from datetime import timedelta
from typing import Any

import pytest

from meterbook import Attribution, Book, InvalidUsage
from meterbook.errors import InvalidRequest, MembershipRefused, UnknownEntity, UnknownInterval, UnknownPlan
from tests.ledger import FREE, P1, P2, Window, count, place_of, query, subscribe, use, utc, windows


async def payer(book: Book, actor: str = "u") -> str:
    return (await book.resolve(actor)).entity


async def where(book: Book, actor: str = "u") -> tuple[str, Window]:
    return await place_of(book, await use(book, actor, "1"))


async def organization(book: Book, plan: str, **terms: Any) -> None:
    await book.put_organization("o", owner="boss")
    await book.add_member("o", "u")
    await subscribe(book, "organization:o", plan, **terms)


@pytest.mark.parametrize(
    ("personal", "organizations", "pays"),
    [
        ("pro", "team", "organization:o"),
        ("pro_25000", "pro", "organization:o"),
        ("team_25000", "team", "organization:o"),
        ("team", "pro_25000", "user:u"),
        ("enterprise", "team_25000", "user:u"),
        ("enterprise", "enterprise", "organization:o"),
    ],
)
async def test_the_highest_rank_pays_and_within_it_the_organization(
    book: Book, personal: str, organizations: str, pays: str
) -> None:
    """enterprise > team > pro; included and start count within one rank and one owner only."""
    await subscribe(book, "user:u", personal)
    await organization(book, organizations)
    assert await payer(book) == pays


async def test_a_team_plan_of_a_person_is_the_persons(book: Book) -> None:
    """Scope comes from whom the subscription belongs to, never from the plan's name."""
    await subscribe(book, "user:u", "team_6000", seats=3)
    assert await where(book) == ("user:u", P1)


async def test_ties_go_to_the_larger_included_then_the_later_start_then_the_id(book: Book, database_url: str) -> None:
    """Of one owner's subscriptions of one rank; asked of the rule itself, at 20 June."""
    who = "select owner_id from meterbook.subscription where id = %s"
    ranked = [("c", "pro_25000", 1), ("b", "pro_6000", 8), ("y", "pro_6000", 2), ("z", "pro_6000", 2)]
    for name, plan, day in reversed(ranked):
        await subscribe(book, "user:u", plan, (utc(2026, 6, day), utc(2026, 7, day)), id=name)
    found = query(
        database_url,
        "select s.id from meterbook.subscription s order by s.plan_rank desc, s.included desc, s.begins_at desc, s.id",
    )
    assert [name for (name,) in found] == ["c", "b", "y", "z"]
    assert len(query(database_url, who, "c")) == 1
    assert await payer(book) == "user:u"


async def test_who_joins_is_paid_for_from_then_on_and_who_leaves_no_more(book: Book) -> None:
    """The personal subscription goes on where it was; nothing that was recorded moves."""
    await subscribe(book, "user:u")
    await book.put_organization("o", owner="boss")
    await subscribe(book, "organization:o", "team_6000")
    assert await where(book) == ("user:u", P1)
    await book.add_member("o", "u")
    assert await where(book) == ("organization:o", P1)
    await book.remove_member("o", "u")
    assert await where(book) == ("user:u", P1)
    assert [(await book.usage(entity)).total for entity in ("user:u", "organization:o")] == [2, 1]


async def test_an_organization_that_does_not_pay_leaves_its_members_alone(book: Book) -> None:
    """Known, joined, without a subscription; its own free period exists, with a limit of 0."""
    await book.put_organization("o", owner="u")
    assert await where(book) == ("user:u", FREE)
    usage = await book.usage("organization:o")
    assert (usage.period.kind, usage.status) == ("free", "exceeded")
    assert usage.limit == 0


async def test_one_organization_a_user(book: Book) -> None:
    """Joining a second, or founding one, is refused; joining the same again only changes the role; the owner stays."""
    await book.put_organization("o", owner="boss")
    await book.put_organization("o2", owner="boss2")
    await book.add_member("o", "u")
    await book.add_member("o", "u", role="admin")
    for refused in (
        book.add_member("o2", "u"),
        book.put_organization("o3", owner="u"),
        book.remove_member("o", "boss"),
        book.remove_member("o2", "u"),
        book.transfer_ownership("o", "boss2"),
    ):
        with pytest.raises(MembershipRefused):
            await refused


async def test_a_refused_organization_is_not_half_made(book: Book, database_url: str) -> None:
    """Its founder belongs to another: it stays unknown, and so does what names it."""
    await book.put_organization("o", owner="u")
    with pytest.raises(MembershipRefused):
        await book.put_organization("o3", owner="u")
    assert count(database_url, "organization") == 1
    with pytest.raises(UnknownEntity):
        await book.usage("organization:o3")


async def test_a_transfer_of_ownership_changes_not_one_amount(book: Book) -> None:
    """The former owner may leave then; the payer stays who it was."""
    await organization(book, "team_6000")
    await use(book, "u", "1")
    before = await book.usage("organization:o")
    await book.transfer_ownership("o", "u")
    assert await book.usage("organization:o") == before
    await book.remove_member("o", "boss")
    with pytest.raises(MembershipRefused):
        await book.remove_member("o", "u")


async def test_an_unknown_organization_is_an_error_everywhere(book: Book) -> None:
    """Never made up, never a default."""
    for call in (
        book.add_member("nobody", "u"),
        book.remove_member("nobody", "u"),
        book.transfer_ownership("nobody", "u"),
        book.put_workspace("w", payer="organization:nobody"),
        book.usage("organization:nobody"),
        book.periods("organization:nobody"),
        subscribe(book, "organization:nobody", "team_6000"),
        book.resolve("u", "nowhere"),
    ):
        with pytest.raises(UnknownEntity):
            await call


async def test_what_a_subscription_says_is_checked(book: Book, database_url: str) -> None:
    """An unknown plan, interval, status or currency, a naive or reversed time, an owner or an id that is none: refused, nothing kept."""
    naive = P1[0].replace(tzinfo=None)
    wrong: list[dict[str, Any]] = [
        {"plan": "gold"},
        {"interval": "week"},
        {"interval": "day"},
        {"status": "great"},
        {"status": "\ud800"},
        {"currency": "EUR"},
        {"window": (naive, P1[1])},
        {"window": ("2026-06-01", P1[1])},
        {"window": (P1[1], P1[0])},
        {"window": (P1[0], P1[0])},
        {"owner": "u"},
        {"owner": "team:u"},
        {"owner": "user:"},
        {"id": ""},
        {"id": "x" * 300},
        {"id": "\ud800"},
        {"seats": -1},
        {"seats": 2**31},
        {"seats": "3"},
        {"stripe_customer": "\0"},
        {"stripe_subscription": "\ud800"},
    ]
    for terms in wrong:
        with pytest.raises(InvalidRequest):
            await subscribe(book, **({"owner": "user:u", "plan": "pro"} | terms))
    assert count(database_url, "subscription") == 0


async def test_unknown_plan_and_interval_say_what_there_is(book: Book) -> None:
    """Errors to fix, with codes of their own."""
    with pytest.raises(UnknownPlan, match="pro_6000"):
        await subscribe(book, "user:u", "gold")
    with pytest.raises(UnknownInterval):
        await subscribe(book, "user:u", "pro", interval="week")


async def test_what_membership_says_is_checked(book: Book, database_url: str) -> None:
    """A role, a name, a workspace that is none: a refusal of ours, nothing kept."""
    await book.put_organization("o", owner="boss")
    for call in (
        book.add_member("o", "u", role="king"),
        book.add_member("o", "u", role="\ud800"),
        book.add_member("o", ""),
        book.add_member("o", "u\0"),
        book.put_organization("", owner="u"),
        book.put_organization("x" * 300, owner="u"),
        book.put_workspace(""),
        book.put_workspace("w", payer="u"),
        book.resolve(""),
        book.resolve("u", ""),
        book.resolve("u", "\ud800"),
    ):
        with pytest.raises(InvalidRequest):
            await call
    assert (count(database_url, "member"), count(database_url, "workspace")) == (1, 0)


async def test_a_subscription_begins_by_the_clock(book: Book, clock: Any) -> None:
    """One that starts tomorrow pays from its start on."""
    start = clock.now + timedelta(days=1)
    await book.put_organization("o", owner="u")
    await subscribe(book, "organization:o", "team_6000", (start, start + timedelta(days=30)))
    assert await payer(book) == "user:u"
    clock.now = start - timedelta(microseconds=1)
    assert await payer(book) == "user:u"
    clock.now = start
    assert await payer(book) == "organization:o"


async def test_a_cancellation_at_the_end_is_carried_out_by_the_clock(book: Book, clock: Any) -> None:
    """At the exact end the subscription has ended: its members fall back, no period follows."""
    await organization(book, "team_6000", cancel_at_period_end=True)
    clock.now = P1[1] - timedelta(microseconds=1)
    assert await where(book) == ("organization:o", P1)
    clock.now = P1[1]
    assert await where(book) == ("user:u", FREE)
    assert [period.kind for period in await book.periods("organization:o")] == ["dated", "free"]


async def test_a_cancellation_taken_back_goes_on(book: Book, clock: Any) -> None:
    """Before its end."""
    await organization(book, "team_6000", cancel_at_period_end=True)
    await subscribe(book, "organization:o", "team_6000")
    clock.now = P1[1]
    assert await where(book) == ("organization:o", P2)


async def test_a_workspace_changes_hands(book: Book) -> None:
    """From then on exactly the new payer pays; None gives it back to whoever acts."""
    paid_by = []
    for owner in ("user:a", "user:b", None):
        await book.put_workspace("w", payer=owner)
        paid_by.append((await use(book, "u", "1", workspace="w")).entries[0].entity)
        paid_by.append((await book.resolve("u", "w")).entity)
    assert paid_by == ["user:a", "user:a", "user:b", "user:b", "user:u", "user:u"]


async def test_a_workspace_of_a_member_is_not_resolved_further(book: Book) -> None:
    """Billed to a person, it is the person's, although an organization pays for the person's own work."""
    await organization(book, "team_6000")
    await book.put_workspace("w", payer="user:u")
    assert await place_of(book, await use(book, "u", "1", workspace="w")) == ("user:u", FREE)


async def test_a_token_says_what_was_resolved(book: Book) -> None:
    """Actor, workspace, entity, period; what nobody gave out is refused, whatever its shape."""
    await book.put_workspace("w", payer="user:p")
    attribution = await book.resolve("u", "w")
    assert Attribution.from_token(attribution.token) == attribution
    assert (attribution.actor, attribution.workspace, attribution.entity) == ("u", "w", "user:p")
    bad: list[Any] = [
        "",
        "mba1",
        "mba1..",
        attribution.token[:-1],
        attribution.token + "0",
        "\0",
        "é",
        "\ud800",
        7,
        b"x",
    ]
    for token in bad:
        with pytest.raises(InvalidUsage):
            await use(book, "u", "1", attribution=token)


async def test_free_is_no_subscription_and_is_refused_as_one(book: Book, database_url: str) -> None:
    """§4: only a definite "no subscription" means the free plan. One that says free would give 5.00 anew each month; the paid one stays."""
    await subscribe(book, "user:u")
    with pytest.raises(InvalidUsage, match="canceled"):
        await subscribe(book, "user:u", "free")
    usage = await book.usage("user:u")
    assert (usage.period.kind, usage.period.plan) == ("dated", "pro_6000")
    with pytest.raises(InvalidUsage):
        await subscribe(book, "user:other", "free")
    assert windows(database_url, "user:other") == []
