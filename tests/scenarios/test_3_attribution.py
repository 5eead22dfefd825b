"""Section 3: attribution."""

from typing import Any

import pytest

from meterbook import AttributionUnavailable, Book, InvalidUsage
from tests.ledger import FREE, P1, amounts, count, holding, place_of, query, subscribe, sums, use


async def test_s19_without_a_subscription_the_person_pays(book: Book) -> None:
    """(user, open period 1970-01-01 … 9999-12-31)."""
    assert await place_of(book, await use(book, "u", "1.00")) == ("user:u", FREE)


async def test_s20_personal_pro(book: Book) -> None:
    """(user, P1)."""
    await subscribe(book, "user:u")
    assert await place_of(book, await use(book, "u", "1.00")) == ("user:u", P1)


@pytest.mark.parametrize("status", ["active", "past_due"])
async def test_s21_a_paying_organization_pays_although_a_pro_runs_off(book: Book, status: str) -> None:
    """(organization, the organization's period), never the user's; also past_due."""
    await subscribe(book, "user:u", cancel_at_period_end=True)
    await book.put_organization("o", owner="boss")
    await book.add_member("o", "u")
    window = (P1[0].replace(day=3), P1[1].replace(day=3))
    await subscribe(book, "organization:o", "team_6000", window, status=status)
    assert await place_of(book, await use(book, "u", "1.00")) == ("organization:o", window)


async def test_s22_a_resolution_that_fails_writes_nothing(book: Book, database_url: str) -> None:
    """Retryable, 0 rows; the retry → 1 row (organization, P1), where the origin booked 4.00 to the free period."""
    await book.put_organization("o", owner="boss")
    await subscribe(book, "organization:o", "team_6000")
    await book.add_member("o", "u")
    query(database_url, "update meterbook.actor set payer_id = null")
    async with holding(database_url, "lock table meterbook.subscription in access exclusive mode"):
        with pytest.raises(AttributionUnavailable) as refused:
            await use(book, "u", "4.00", "K")
    assert refused.value.retryable
    assert count(database_url) == 0
    assert await place_of(book, await use(book, "u", "4.00", "K")) == ("organization:o", P1)
    assert amounts(database_url) == [4]


async def two_organizations(book: Book) -> None:
    for name in ("x", "y"):
        await book.put_organization(name, owner=f"boss of {name}")
        await subscribe(book, f"organization:{name}", "team_6000")
    await book.add_member("x", "a")


async def test_s24_a_workspace_names_its_payer(book: Book, database_url: str) -> None:
    """Actor A, member of X, in a workspace billed to Y, 2.00 → X 0, Y 2.00, actor A."""
    await two_organizations(book)
    await book.put_workspace("w", payer="organization:y")
    await use(book, "a", "2.00", workspace="w")
    assert sums(database_url) == {"organization:y": 2}
    assert dict((await book.usage("organization:y")).by_actor) == {"a": 2}


async def test_s24_an_unknown_workspace_is_an_error(book: Book, database_url: str) -> None:
    """No row."""
    with pytest.raises(InvalidUsage) as refused:
        await use(book, "a", "2.00", workspace="nowhere")
    (problem,) = refused.value.problems
    assert (problem.field, problem.code) == ("workspace", "unknown_workspace")
    assert count(database_url) == 0


async def test_s24_a_workspace_without_a_payer_leaves_it_to_the_actor(book: Book) -> None:
    """Known, and nobody named: the actor's organization."""
    await two_organizations(book)
    await book.put_workspace("w")
    said: dict[str, Any] = {"workspace": "w"}
    assert (await place_of(book, await use(book, "a", "2.00", **said)))[0] == "organization:x"
