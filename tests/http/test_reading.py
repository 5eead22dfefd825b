"""Reading over HTTP: the library's figures, page by page, and a CSV that runs nothing."""

import csv
import dataclasses
import io
from decimal import Decimal
from typing import Any

import httpx
import pytest

from meterbook.core import ledgers
from meterbook.core.admission import Admission
from meterbook.core.api_keys import Act, ApiKey
from meterbook.core.entry_pages import EntryPage, UsageEntry
from meterbook.core.period_facts import Period
from meterbook.core.recorded import Recorded, RecordedEntry
from meterbook.csv_export import COLUMNS, safe
from meterbook.http import wire
from meterbook.plain import as_json, usage_data
from tests.http.conftest import Service, entry

ADA = {"entity": "user:ada"}


async def filled(recorder: httpx.AsyncClient, number: int = 5) -> None:
    said = [entry(f"k{n}", amount=f"0.{n + 1}", source="copilot" if n % 2 else "workflow") for n in range(number)]
    assert (await recorder.post("/v1/entries/batch", json=said)).status_code == 200


SHAPES = [
    (wire.PeriodOut, Period),
    (wire.EntryOut, UsageEntry),
    (wire.EntriesOut, EntryPage),
    (wire.ChargeOut, ledgers.Charge),
    (wire.GrantOut, ledgers.GrantState),
    (wire.CreditsOut, ledgers.CreditAccount),
    (wire.HoldOut, ledgers.HoldState),
    (wire.MemberOut, ledgers.MemberCap),
    (wire.AppliedOut, ledgers.StripeApplied),
    (wire.AdmissionOut, Admission),
    (wire.KeyOut, ApiKey),
    (wire.ActOut, Act),
    (wire.RecordedOut, Recorded),
    (wire.RecordedEntryOut, RecordedEntry),
]


@pytest.mark.parametrize(("shown", "known"), SHAPES, ids=lambda kind: kind.__name__)
def test_what_is_shown_is_what_is_known(shown: type[Any], known: type[Any]) -> None:
    """A field that a result gains is not forgotten on the wire."""
    fields = known._fields if hasattr(known, "_fields") else [each.name for each in dataclasses.fields(known)]
    assert set(shown.__struct_fields__) == set(fields)


async def test_usage_is_what_the_library_says(
    service: Service, recorder: httpx.AsyncClient, reader: httpx.AsyncClient
) -> None:
    """Every figure, from the same snapshot code, as strings."""
    await filled(recorder)
    told = (await reader.get("/v1/usage", params=ADA)).json()
    assert told == as_json(usage_data(await service.book.usage("user:ada")))
    assert (told["total"], told["count"], told["by_source"]) == ("1.50", 5, {"workflow": "0.90", "copilot": "0.60"})


async def test_entries_page_by_page_are_all_of_them(recorder: httpx.AsyncClient, reader: httpx.AsyncClient) -> None:
    """Each once, newest first, whatever the size of a page; the summary covers the filter."""
    await filled(recorder, 7)
    seen, cursor = [], None
    while True:
        params = {**ADA, "limit": "3", **({"cursor": cursor} if cursor else {})}
        page = (await reader.get("/v1/entries", params=params)).json()
        assert page["summary"] == {"count": 7, "amount": "2.80"}
        seen += [each["id"] for each in page["entries"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 7
    filtered = (await reader.get("/v1/entries", params={**ADA, "source": "copilot"})).json()
    assert (filtered["summary"]["count"], {each["source"] for each in filtered["entries"]}) == (3, {"copilot"})


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/usage", 400, "bad_query"),
        ("/v1/usage?entity=ada", 422, "invalid_usage"),
        ("/v1/usage?entity=organization:nobody", 404, "unknown_entity"),
        ("/v1/usage?entity=user:ada&period=77", 404, "unknown_period"),
        ("/v1/usage?entity=user:ada&period=tomorrow", 400, "bad_query"),
        ("/v1/usage?entity=user:ada&period=9999999999999999999", 422, "invalid_usage"),
        ("/v1/usage?entity=user:ada&when=now", 400, "bad_query"),
        ("/v1/entries?entity=user:ada&cursor=xyz", 400, "invalid_cursor"),
        ("/v1/entries?entity=user:ada&limit=0", 400, "bad_query"),
        ("/v1/entries?entity=user:ada&limit=1001", 400, "bad_query"),
        ("/v1/entries?entity=user:ada&start=2026-01-01T00:00:00", 422, "invalid_usage"),
        ("/v1/entries?entity=user:ada%00", 422, "invalid_usage"),
        ("/v1/entries.csv?entity=user:ada%00", 422, "invalid_usage"),
        ("/v1/members?organization=nobody", 404, "unknown_entity"),
        ("/v1/nothing", 404, "not_found"),
    ],
)
async def test_what_cannot_be_read_is_a_problem(reader: httpx.AsyncClient, path: str, status: int, code: str) -> None:
    """A problem document with a stable code, whoever finds the mistake: the framework, the wire types or the library."""
    refused = await reader.get(path)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert refused.headers["content-type"] == "application/problem+json"


async def test_a_wrong_method_says_which_are_right(reader: httpx.AsyncClient) -> None:
    """405 as a problem, with Allow."""
    refused = await reader.patch("/v1/usage")
    assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in refused.headers["allow"]


async def test_the_csv_has_every_entry_and_no_formula(recorder: httpx.AsyncClient, reader: httpx.AsyncClient) -> None:
    """More than a page of rows, each with the amount to its last place; what begins like a formula begins with an apostrophe."""
    said = [entry(f"k{n}", amount="0.000000000001") for n in range(1001)]
    said += [entry("f", description='=HYPERLINK("http://evil","x")', amount="2", workflow="@sum", line="-1+2")]
    assert (await recorder.post("/v1/entries/batch", json=said)).status_code == 200
    answer = await reader.get("/v1/entries.csv", params=ADA)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert tuple(rows[0]) == COLUMNS
    assert (len(rows), len({row["id"] for row in rows})) == (1002, 1002)
    assert sum(Decimal(row["amount"]) for row in rows) == Decimal("2.000000001001")
    (formula,) = (row for row in rows if row["workflow"])
    assert (formula["description"][:3], formula["workflow"], formula["line"]) == ("'=H", "'@sum", "'-1+2")
    assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for row in rows for cell in row.values())


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1"])
def test_a_cell_never_begins_like_a_formula(text: str) -> None:
    """What spreadsheets take for one, or strip to one."""
    assert safe(text) == f"'{text}"
    assert safe("plain = text") == "plain = text"


async def test_the_other_reads_answer(service: Service, recorder: httpx.AsyncClient, reader: httpx.AsyncClient) -> None:
    """Periods, charges, credits, holds, explanations and members, in the shapes of the reference."""
    await filled(recorder)
    await service.book.put_organization("acme", owner="olga")
    await service.book.grant_credit("user:ada", amount="25.10", grant_id="promo")
    await service.book.place_hold("ada", amount="0.50", hold_id="h1")
    told = {
        path: (await reader.get(f"/v1/{path}", params=ADA)).json()
        for path in ("periods", "charges", "credits", "holds", "explain")
    }
    assert [each["kind"] for each in told["periods"]["periods"]] == ["free"]
    assert told["charges"] == {"charges": []}
    assert told["credits"]["balance_cents"] == 2510
    assert [(each["id"], each["amount"]) for each in told["holds"]["holds"]] == [("h1", "0.50")]
    assert told["explain"]["terms"][0]["value"] == "1.50"
    why = await reader.get("/v1/explain/check", params={"actor": "ada"})
    assert why.status_code == 200
    members = await reader.get("/v1/members", params={"organization": "acme"})
    assert members.json() == {"members": [{"user": "olga", "role": "owner", "cap": None}]}


async def test_ids_may_hold_any_character(recorder: httpx.AsyncClient, reader: httpx.AsyncClient) -> None:
    """Slashes, question marks, spaces, percent signs, other scripts."""
    actor = "a/b?c=d&e %2F é 漢"
    assert (await recorder.post("/v1/entries", json=entry(actor=actor))).status_code == 200
    told = await reader.get("/v1/usage", params={"entity": f"user:{actor}"})
    assert (told.status_code, told.json()["by_actor"]) == (200, {actor: "1.50"})
