"""What pages show: the library's figures with every digit, what to do, and that nothing is there, where nothing is."""

import re
from datetime import timedelta
from decimal import Decimal
from functools import reduce

import httpx
import pytest

from meterbook import Book
from meterbook.console.rendering import cut, exact, places_of
from meterbook.core.charges import unbilled_cents
from meterbook.core.derivation import amount_text
from meterbook.core.money import EXACT
from meterbook.postgres.refusals import refusals
from tests.conftest import Clock
from tests.console.conftest import Console, amounts_of, form_of, links_of
from tests.ledger import count

ACME = {"entity": "organization:acme"}


async def some_usage(book: Book, clock: Clock) -> None:
    """An organization on a plan with overage, a person without, days apart, late ones, a credit, a correction, a hold."""
    await book.put_organization("acme", owner="ada")
    await book.add_member("acme", "bob")
    start = clock.now.replace(day=1, hour=9, minute=30)
    await book.put_subscription(
        id="sub_1", owner="organization:acme", plan="team_6000", seats=2, status="active",
        starts_at=start, ends_at=start + timedelta(days=30),
    )  # fmt: skip
    for day in range(10):
        for name, amount in (("ada", "7.123456789"), ("bob", "0.25"), ("cyd", "0.4000001")):
            at = start + timedelta(days=day, hours=day)
            await book.record(
                name, source="copilot" if day % 2 else "workflow", description=f"model-{day % 3}", amount=amount,
                event_key=f"{name}{day}", occurred_at=at,
            )  # fmt: skip
    await book.grant_credit("organization:acme", amount="12.50", grant_id="welcome")
    entry = (await book.entries("organization:acme", limit=1)).entries[0]
    await book.correct(entry.id, amount="-0.05", reason="a test", event_key="fix")
    await book.place_hold("ada", amount="0.75")


async def test_the_overview_adds_up_to_what_each_payer_is_told(
    operator: httpx.AsyncClient, book: Book, clock: Clock
) -> None:
    """Sums over all payers are the sums of their reports, folded or not: one statement, held against the core (I6)."""
    await some_usage(book, clock)
    reports = [await book.usage(name) for name in ("organization:acme", "user:cyd")]
    for fold in (False, True):
        if fold:
            await book.compact()
        seen = await book.overview()
        for name in ("total", "refresh", "effective"):
            assert getattr(seen.sums, name) == reduce(EXACT.add, (getattr(each, name) for each in reports)), name
        assert seen.sums.unbilled_cents == sum(map(unbilled_cents, reports)) > 0
        assert reduce(EXACT.add, (each.amount for each in seen.days)) == seen.sums.total
        assert reduce(EXACT.add, (each.refresh for each in seen.days)) == seen.sums.refresh
        assert [each.entity for each in seen.largest] == ["organization:acme", "user:cyd"]
    page = (await operator.get("/console")).text
    assert {amount_text(each.total) for each in reports} <= set(amounts_of(page))


async def test_what_was_given_back_in_money_is_in_no_effective_usage_of_the_overview(book: Book, clock: Clock) -> None:
    """A correction of a closed period shows in the open one's total alone, in the sum over all payers as in the payer's own (§3.7)."""
    await book.put_subscription(
        id="sub_2", owner="user:dee", plan="pro", status="active", starts_at=clock.now, ends_at=clock.now + timedelta(days=30),
        stripe_customer="cus_1", stripe_subscription="sub_s",
    )  # fmt: skip
    entry = (await book.record("dee", source="workflow", description="m", amount="25.125", event_key="k")).entries[0]
    clock.now += timedelta(days=31)
    await book.sweep()
    await book.correct(entry.id, amount="-3", reason="a test", event_key="fix")
    await book.record("dee", source="workflow", description="m", amount="4", event_key="k2")
    for fold in (False, True):
        if fold:
            await book.compact()
        usage, seen = await book.usage("user:dee"), await book.overview()
        assert (usage.total, usage.effective) == (Decimal(1), Decimal("3.80"))  # 4 − 0.20 refreshed
        assert (seen.sums.total, seen.sums.effective) == (usage.total, usage.effective)


async def test_a_payers_page_shows_every_digit(operator: httpx.AsyncClient, book: Book, clock: Clock) -> None:
    """Each figure of the report is there as the library gives it; each breakdown's rows add up to its sum, exactly."""
    await some_usage(book, clock)
    usage = await book.usage("organization:acme")
    page = (await operator.get("/console/entity", params=ACME)).text
    shown = set(amounts_of(page))
    for figure in (usage.total, usage.refresh, usage.effective, usage.limit, usage.overage, usage.held):
        assert amount_text(figure) in shown
    tables = re.findall(r'<table class="breakdown"><tbody>(.*?)</tbody><tfoot>(.*?)</tfoot>', page, re.DOTALL)
    assert len(tables) == 3
    for rows, foot in tables:
        assert (
            amount_text(reduce(EXACT.add, map(Decimal, amounts_of(rows))))
            == amounts_of(foot)[0]
            == amount_text(usage.total)
        )


async def test_each_figure_can_be_explained_down_to_rows(operator: httpx.AsyncClient, book: Book, clock: Clock) -> None:
    """Every Explain link opens a derivation with the figure's own value; the whole one names entries by their id."""
    await some_usage(book, clock)
    page = (await operator.get("/console/entity", params=ACME)).text
    links = links_of(page, "/console/explain")
    assert len(links) >= 9
    for link in links:
        explained = await operator.get(link)
        assert explained.status_code == 200, link
    whole = (await operator.get("/console/explain", params=ACME)).text
    entries = {each.id for each in (await book.entries("organization:acme", limit=100)).entries}
    assert any(each in whole for each in entries)


async def test_entries_are_filtered_and_paged(operator: httpx.AsyncClient, book: Book) -> None:
    """Each entry once over all pages, newest first; the summary covers the filter; the next page keeps it."""
    said = [
        {"actor": "ada", "source": "workflow" if n % 2 else "wand", "description": f"m{n}", "amount": "0.01", "event_key": f"k{n}"}
        for n in range(120)
    ]  # fmt: skip
    await book.record_many(said)
    seen, address = [], "/console/entity?entity=user:ada&source=workflow"
    while address:
        page = (await operator.get(address)).text
        assert "60 of this filter" in page
        seen += re.findall(r"<td>(m\d+)</td>", page)
        address = next((each for each in links_of(page, "/console/entity") if "cursor=" in each), "")
    assert sorted(seen) == sorted(each["description"] for each in said if each["source"] == "workflow")
    assert len(seen) == 60


async def test_a_filter_of_very_many_entries_is_not_summed_on_a_page(
    operator: httpx.AsyncClient, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless its sum is kept: of a member, or of a source. The page says so, and lists what matches all the same."""
    monkeypatch.setattr("meterbook.console.entity.COUNTED_MAX", 3)
    for n in range(4):
        await book.record("ada", source="wand", description="m", amount="0.01", event_key=f"k{n}", category="tool")
    entity = "/console/entity?entity=user:ada"
    for filter_ in ("&source=wand", "&actor=ada"):
        assert "4 of this filter" in (await operator.get(entity + filter_)).text
    for filter_ in ("&source=wand&actor=ada", "&category=tool"):
        page = (await operator.get(entity + filter_)).text
        assert "is not summed" in page
        assert page.count("<td>m</td>") == 4


async def test_the_csv_is_the_filters(operator: httpx.AsyncClient, book: Book) -> None:
    """The link of a page exports what the page's filter finds, all of it; no cell is a formula."""
    for n in range(3):
        await book.record(
            "ada", source="wand" if n else "workflow", description="=1+1", amount="0.01", event_key=f"k{n}"
        )
    page = (await operator.get("/console/entity?entity=user:ada&source=wand")).text
    (link,) = links_of(page, "/console/entries.csv")
    answer = await operator.get(link)
    assert answer.headers["content-disposition"] == 'attachment; filename="entries.csv"'
    assert len(answer.text.splitlines()) == 3
    assert ",'=1+1," in answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/console/entity?entity=user:nobody", 404),
        ("/console/entity?entity=nobody", 400),
        ("/console/entity", 400),
        ("/console/entity?entity=user:ada&period=77", 404),
        ("/console/entity?entity=user:ada&period=x", 400),
        ("/console/entity?entity=user:ada&period=9223372036854775808", 400),
        ("/console/entity?entity=user:ada&cursor=x", 400),
        ("/console/entity?entity=user:ada&start=yesterday", 400),
        ("/console/entity?entity=user:ada&unknown=1", 400),
        ("/console/explain?entity=user:ada&figure=nothing", 404),
        ("/console/billing?periods_before=x", 400),
        ("/console/keys?before=0", 400),
        ("/console/nowhere/at/all", 404),
    ],
)
async def test_what_is_wrong_with_an_address_is_a_page(
    operator: httpx.AsyncClient, book: Book, path: str, status: int
) -> None:
    """With the way back, and in words; never a bare error."""
    await book.record("ada", source="workflow", description="gpt-4o", amount="1", event_key="k")
    answer = await operator.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert "To the overview" in answer.text


async def test_looking_for_somebody_does_not_make_them_known(operator: httpx.AsyncClient, database_url: str) -> None:
    """A misspelt id leaves no payer behind."""
    await operator.get("/console/entity?entity=user:tyop")
    await operator.get("/console/find?q=tyop")
    with refusals():
        assert count(database_url, "billing_entity") == 0


async def test_a_payer_is_found_by_the_beginning_of_its_id(operator: httpx.AsyncClient, book: Book) -> None:
    """The only one is opened at once; % and _ are letters like others."""
    for name in ("anna", "anton", "50%_off"):
        await book.record(name, source="workflow", description="m", amount="1", event_key=name)
    both = (await operator.get("/console/find?q=an")).text
    assert links_of(both, "/console/entity") == [
        "/console/entity?entity=user%3Aanna",
        "/console/entity?entity=user%3Aanton",
    ]
    assert (await operator.get("/console/find?q=user:ann")).headers["location"] == "/console/entity?entity=user%3Aanna"
    assert "No payer" in (await operator.get("/console/find", params={"q": "%"})).text
    assert (await operator.get("/console/find", params={"q": "50%_"})).status_code == 303


async def test_an_empty_ledger_says_how_to_begin(operator: httpx.AsyncClient) -> None:
    """No page of a new installation is blank or broken."""
    assert "meterbook record" in (await operator.get("/console")).text
    assert "Nothing was charged yet" in (await operator.get("/console/billing")).text
    assert "No key was ever used for two things" in (await operator.get("/console/problems")).text


@pytest.mark.parametrize("is_demo", [False, True])
async def test_made_up_data_is_called_so_on_every_page(console: Console, book: Book, is_demo: bool) -> None:
    """In the console, on the customer's page and in each answer of the API; elsewhere nothing of it."""
    if is_demo:
        await book.begin_demo()
    await book.record("ada", source="workflow", description="gpt-4o", amount="1", event_key="k")
    operator = await console.operator()
    link = f"/console/customer/{console.desk.link('user:ada', console.desk.now() + timedelta(days=1))}"
    pages = (
        "",
        "/billing",
        "/problems",
        "/keys",
        "/entity?entity=user:ada",
        "/explain?entity=user:ada",
        "/nowhere",
        "/login",
    )
    for path in (*(f"/console{page}" for page in pages), link):
        answer = await operator.get(path)
        assert ("Demo data." in answer.text) is is_demo, path
        assert answer.headers.get("meterbook-data") == ("demo" if is_demo else None)
    assert (await operator.get("/healthz")).headers.get("meterbook-data") == ("demo" if is_demo else None)


async def test_problems_say_what_to_do(operator: httpx.AsyncClient, book: Book, clock: Clock) -> None:
    """A close that waits, a block, a conflict: each with who, since when, and the way out."""
    await some_usage(book, clock)
    await book.block("user:cyd", reason="administrative")
    await book.record("ada", source="workflow", description="model-0", amount="30", event_key="more")
    with pytest.raises(Exception, match="something else"):
        await book.record("cyd", source="workflow", description="model-0", amount="9", event_key="cyd0")
    clock.now += timedelta(days=40)
    await book.sweep()
    page = (await operator.get("/console/problems")).text
    for said in ("has no Stripe ids", "meterbook unblock", "0.4000001", "a key names one intent to charge"):
        assert said in page
    assert "All is well" not in page
    overview = (await operator.get("/console")).text
    assert "closes that wait" in overview


async def test_a_closed_month_is_listed_with_its_charge(operator: httpx.AsyncClient, book: Book, clock: Clock) -> None:
    """Period and charge, the overage at the close, and Explain for both."""
    await book.put_subscription(
        id="sub_2", owner="user:dee", plan="pro", status="active", starts_at=clock.now, ends_at=clock.now + timedelta(days=30),
        stripe_customer="cus_1", stripe_subscription="sub_s",
    )  # fmt: skip
    await book.record("dee", source="workflow", description="m", amount="25.125", event_key="k")
    clock.now += timedelta(days=31)
    await book.sweep()
    page = (await operator.get("/console/billing?state=closed")).text
    assert {"4.925", "4.93"} <= set(amounts_of(page))  # 25.125 − 0.20 refreshed − 20 included; half up
    assert len(links_of(page, "/console/explain")) == 2
    for link in links_of(page, "/console/explain"):
        assert (await operator.get(link)).status_code == 200


async def test_a_key_is_made_shown_once_and_revoked(console: Console, operator: httpx.AsyncClient) -> None:
    """By the forms of the page; both acts are in the log, the key's text in neither the log nor the list."""
    said = {"csrf": await form_of(operator), "name": "billing", "scope_read": "1", "days": "30"}
    page = (await operator.post("/console/keys", data=said)).text
    (text,) = re.findall(r">(mb_[0-9a-f_]+)</textarea>", page)
    made = await console.book.know_key(text)
    assert (made.name, made.scopes) == ("billing", ("read",))
    listed = (await operator.get("/console/keys")).text
    assert text not in listed
    assert (
        await operator.post("/console/keys/revoke", data={"csrf": said["csrf"], "id": str(made.id)})
    ).status_code == 303
    acts = await console.book.acts()
    assert [(act.act, act.outcome) for act in acts] == [("revoke_key", "done"), ("make_key", "done")]
    assert text not in str(acts)


async def test_a_refused_act_is_a_page_and_is_noted(console: Console, operator: httpx.AsyncClient) -> None:
    """A key without a scope is refused in words."""
    answer = await operator.post("/console/keys", data={"csrf": await form_of(operator), "name": "x", "days": ""})
    assert answer.status_code == 400
    assert "at least one scope" in answer.text
    assert [act.outcome for act in await console.book.acts()] == ["refused"]


@pytest.mark.parametrize("theme", ["light", "dark", "auto", "nonsense"])
async def test_the_look_is_chosen_without_a_script(operator: httpx.AsyncClient, theme: str) -> None:
    """A cookie says it; what is not known is the system's choice."""
    answer = await operator.post("/console/theme", data={"theme": theme, "next": "/console/keys"})
    assert answer.headers["location"] == "/console/keys"
    known = theme if theme in {"light", "dark"} else "auto"
    assert f'data-theme="{known}"' in (await operator.get("/console/keys")).text


@pytest.mark.parametrize(
    ("amount", "places", "text"),
    [
        ("1234567.5", 2, "1,234,567.50"),
        ("0.0123", 6, "0.0123\u2007\u2007"),
        ("-3.1", 2, "−3.10"),
        ("999999999999.999999999999", 12, "999,999,999,999.999999999999"),
        ("1E-7", 7, "0.0000001"),
    ],
)
def test_an_amount_is_written_with_every_digit(amount: str, places: int, text: str) -> None:
    """Padded behind the point so that a column aligns, never rounded."""
    assert re.sub("<[^>]+>", "", str(exact(Decimal(amount), places))) == text
    assert places_of([Decimal(amount)]) <= max(places, 2)


@pytest.mark.parametrize(("amount", "text"), [("0.999", "0.99"), ("1234.5", "1,234.50"), ("-0.019", "-0.01")])
def test_an_axis_is_cut_never_rounded_up(amount: str, text: str) -> None:
    """What is shown short is never more than it is."""
    assert cut(Decimal(amount)) == text
