"""Section 1: plans and resolution."""

from meterbook import Book
from tests.ledger import query, subscribe


async def payer(book: Book) -> str:
    return (await book.resolve("u")).entity


async def both(book: Book, personal: str, organization: str) -> None:
    await book.put_organization("o", owner="boss")
    await book.add_member("o", "u")
    await subscribe(book, "user:u", personal)
    await subscribe(book, "organization:o", organization)


async def test_s03_within_one_tier_the_organization_pays(book: Book) -> None:
    """Personal pro_25000 and an organization's pro_6000: the organization's applies; its team_6000 all the more."""
    await both(book, "pro_25000", "pro_6000")
    assert await payer(book) == "organization:o"
    await subscribe(book, "organization:o", "team_6000")
    assert await payer(book) == "organization:o"


async def test_s03_a_higher_tier_pays_whomever_it_belongs_to(book: Book) -> None:
    """Personal enterprise against an organization's team: the enterprise."""
    await both(book, "enterprise", "team_6000")
    assert await payer(book) == "user:u"


async def test_s03_a_canceled_subscription_pays_nothing(book: Book) -> None:
    """The organization's is canceled: personal pro_25000."""
    await both(book, "pro_25000", "team_6000")
    await subscribe(book, "organization:o", "team_6000", status="canceled")
    assert await payer(book) == "user:u"


async def test_s03_a_subscription_of_an_organization_that_is_gone_is_ignored(book: Book, database_url: str) -> None:
    """The subscription is active, its organization's row is not there."""
    await both(book, "pro_25000", "team_6000")
    query(database_url, "delete from meterbook.organization")
    await subscribe(book, "user:u", "pro_25000")
    assert await payer(book) == "user:u"


async def test_s03_past_due_counts_and_unpaid_does_not(book: Book) -> None:
    """Entitled are active, trialing and past_due."""
    await both(book, "pro_25000", "team_6000")
    pays = {}
    for status in ("active", "unpaid", "trialing", "paused", "past_due", "incomplete", "canceled"):
        await subscribe(book, "organization:o", "team_6000", status=status)
        pays[status] = await payer(book)
    assert {status for status, entity in pays.items() if entity == "organization:o"} == {
        "active",
        "trialing",
        "past_due",
    }
