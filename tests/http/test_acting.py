"""Deciding and administering over HTTP: checks, holds, customers, limits; each administrative act in the audit log."""

from typing import Any

import httpx
import pytest

from meterbook.errors import LedgerUnavailable
from tests.http.conftest import Making, Service, entry
from tests.ledger import query, total

SUBSCRIPTION = {
    "id": "s1",
    "owner": "organization:acme",
    "plan": "team",
    "status": "active",
    "starts_at": "2026-06-01T00:00:00Z",
    "ends_at": "2026-07-01T00:00:00Z",
    "seats": 2,
}


async def test_a_check_answers_also_when_it_denies(recorder: httpx.AsyncClient) -> None:
    """200 both times: `allowed` says it, with the numbers that were compared."""
    assert (await recorder.post("/v1/checks", json={"actor": "ada"})).json()["allowed"] is True
    await recorder.post("/v1/entries", json=entry(amount="5"))
    denied = await recorder.post("/v1/checks", json={"actor": "ada"})
    said = {name: denied.json()[name] for name in ("allowed", "code", "used", "limit", "retryable")}
    assert denied.status_code == 200
    assert said == {"allowed": False, "code": "limit_reached", "used": "5.00", "limit": "5.00", "retryable": False}


async def test_a_hold_is_settled_once(service: Service, recorder: httpx.AsyncClient) -> None:
    """Placed, placed again (the same), settled, settled again (replayed); what is too much is 402 with the admission."""
    said = {"actor": "ada", "amount": "3", "hold_id": "h"}
    placed = [(await recorder.post("/v1/holds", json=said)).json()["granted_at"] for _ in range(2)]
    assert placed[0] == placed[1]
    denied = await recorder.post("/v1/holds", json={"actor": "ada", "amount": "2.01"})
    assert (denied.status_code, denied.json()["admission"]["held"]) == (402, "3.00")
    cost = {"hold_id": "h", "amount": "1.25", "source": "workflow", "description": "gpt-4o"}
    settled = [(await recorder.post("/v1/holds/settle", json=cost)).json() for _ in range(2)]
    assert [(each["state"], each["recorded"]["inserted"]) for each in settled] == [("settled", 1), ("settled", 0)]
    assert str(await total(service.book, "user:ada")) == "1.25"
    assert (await recorder.post("/v1/holds/release", json={"hold_id": "h"})).json() == {"released": False}
    assert (await recorder.post("/v1/holds/release", json={"hold_id": "unknown"})).status_code == 404


async def test_customers_are_made_known_and_changed(service: Service, admin: httpx.AsyncClient) -> None:
    """An organization, its members, caps, workspace, subscription, limit, grant, block: over HTTP as in Python."""
    done = [
        await admin.put("/v1/organizations", json={"organization": "acme", "owner": "olga"}),
        await admin.put("/v1/members", json={"organization": "acme", "user": "ada"}),
        await admin.put("/v1/members/cap", json={"organization": "acme", "user": "ada", "cap": "10"}),
        await admin.put("/v1/workspaces", json={"workspace": "w", "payer": "organization:acme"}),
        await admin.put("/v1/subscriptions", json=SUBSCRIPTION),
        await admin.put("/v1/limits", json={"entity": "organization:acme", "amount": "200.005"}),
        await admin.post("/v1/grants", json={"entity": "organization:acme", "amount": "25.10", "grant_id": "g"}),
        await admin.post("/v1/grants", json={"entity": "organization:acme", "amount": "25.10", "grant_id": "g"}),
        await admin.post("/v1/blocks", json={"entity": "organization:acme", "reason": "administrative"}),
        await admin.delete("/v1/blocks", params={"entity": "organization:acme", "reason": "administrative"}),
        await admin.put("/v1/organizations/owner", json={"organization": "acme", "user": "ada"}),
        await admin.delete("/v1/members", params={"organization": "acme", "user": "olga"}),
    ]
    assert [each.status_code for each in done] == [200] * len(done)
    assert done[5].json() == {"entity": "organization:acme", "limit": "200.01"}
    assert [done[6].json(), done[7].json()] == [{"granted": True}, {"granted": False}]
    assert [done[8].json(), done[9].json()] == [{"changed": True}, {"changed": True}]
    usage = await service.book.usage("organization:acme")
    assert (usage.period.plan, usage.period.seats, str(usage.limit)) == ("team", 2, "200.01")
    acts = (await admin.get("/v1/audit")).json()["acts"]
    assert len(acts) == len(done)
    assert {each["outcome"] for each in acts} == {"done"}
    assert acts[-1] | {"id": 0, "at": "", "ended_at": "", "request": "", "by_whom": ""} == {
        "id": 0,
        "at": "",
        "ended_at": "",
        "request": "",
        "by_whom": "",
        "act": "put_organization",
        "subject": "organization:acme",
        "said": {"organization": "acme", "owner": "olga"},
        "outcome": "done",
        "code": None,
    }
    assert acts[0]["by_whom"].startswith("key ")
    assert acts[0]["request"] == done[-1].headers["x-request-id"]


async def test_the_audit_log_is_paged_and_filtered(admin: httpx.AsyncClient) -> None:
    """Newest first, `before` an id, of one subject."""
    for name in ("a", "b", "c"):
        await admin.put("/v1/organizations", json={"organization": name, "owner": f"owner_{name}"})
    first = (await admin.get("/v1/audit", params={"limit": 2})).json()["acts"]
    rest = (await admin.get("/v1/audit", params={"limit": 2, "before": first[-1]["id"]})).json()["acts"]
    assert [each["subject"][-1] for each in first + rest] == ["c", "b", "a"]
    one = (await admin.get("/v1/audit", params={"subject": "organization:b"})).json()["acts"]
    assert [each["said"]["owner"] for each in one] == ["owner_b"]


@pytest.mark.parametrize(
    ("method", "path", "said", "status", "code"),
    [
        ("PUT", "/v1/subscriptions", {**SUBSCRIPTION, "plan": "gold"}, 422, "unknown_plan"),
        ("PUT", "/v1/subscriptions", SUBSCRIPTION, 404, "unknown_entity"),
        ("PUT", "/v1/subscriptions", {**SUBSCRIPTION, "owner": "user:ada", "status": "odd"}, 422, "invalid_usage"),
        ("PUT", "/v1/limits", {"entity": "user:ada", "amount": "1"}, 409, "limit_refused"),
        ("PUT", "/v1/limits", {"entity": "ada", "amount": "1"}, 422, "invalid_usage"),
        ("PUT", "/v1/members", {"organization": "nobody", "user": "ada"}, 404, "unknown_entity"),
        ("POST", "/v1/grants", {"entity": "user:ada", "amount": "0.001", "grant_id": "g"}, 422, "invalid_usage"),
        ("POST", "/v1/blocks", {"entity": "user:ada", "reason": "bored"}, 422, "invalid_usage"),
    ],
)
async def test_an_act_that_is_refused_is_in_the_log(
    service: Service, admin: httpx.AsyncClient, method: str, path: str, said: Any, status: int, code: str
) -> None:
    """As refused, with the code; what is no sound request is refused before it is an act."""
    refused = await admin.request(method, path, json=said)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    logged = [(act.outcome, act.code) for act in await service.book.acts()]
    assert logged in ([], [("refused", code)])


async def test_an_act_that_cannot_be_noted_is_not_carried_out(admin: httpx.AsyncClient, database_url: str) -> None:
    """The log comes first: without it the organization stays unknown."""
    query(database_url, "alter table meterbook.act_log add constraint full_disk check (false) not valid")
    refused = await admin.put("/v1/organizations", json={"organization": "acme", "owner": "olga"})
    query(database_url, "alter table meterbook.act_log drop constraint full_disk")
    assert refused.status_code == 422
    assert query(database_url, "select * from meterbook.organization") == []


async def test_an_act_that_is_cut_off_has_no_outcome(service: Service) -> None:
    """Whoever reads the log learns that it is not known whether it took effect."""

    async def cut_off() -> None:
        async with service.book.act("the tests", "close", "user:ada", {}):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await cut_off()
    assert [act.outcome for act in await service.book.acts()] == [None]


async def test_an_act_that_could_not_be_done_then_is_failed(service: Service) -> None:
    """A retryable error is not a refusal."""

    async def fail() -> None:
        async with service.book.act("the tests", "close", "user:ada", {}):
            raise LedgerUnavailable

    with pytest.raises(LedgerUnavailable):
        await fail()
    assert [(act.outcome, act.code) for act in await service.book.acts()] == [("failed", "ledger_unavailable")]


async def test_a_deleted_person_is_erased_from_the_log(service: Service, admin: httpx.AsyncClient) -> None:
    """Their name stands nowhere in it, neither as subject nor in what was said; the acts stay, about a surrogate."""
    name = "ada.lovelace@example.com"
    await admin.put("/v1/organizations", json={"organization": "acme", "owner": "olga"})
    await admin.put("/v1/members", json={"organization": "acme", "user": name})
    await admin.post("/v1/grants", json={"entity": f"user:{name}", "amount": "1", "grant_id": "g"})
    await admin.delete("/v1/members", params={"organization": "acme", "user": name})
    assert (await admin.delete("/v1/users", params={"user": name})).status_code == 200
    acts = await service.book.acts()
    assert [act.act for act in acts] == [
        "delete_user",
        "remove_member",
        "grant_credit",
        "add_member",
        "put_organization",
    ]
    assert name not in str(acts)
    assert acts[1].said["user"].startswith("#")
    assert acts[0].subject.startswith("user:#")


async def test_the_log_is_never_changed(service: Service, admin: httpx.AsyncClient, database_url: str) -> None:
    """Not even by a superuser: UPDATE, DELETE and TRUNCATE of acts and outcomes are refused."""
    await admin.put("/v1/organizations", json={"organization": "acme", "owner": "olga"})
    for table in ("act_log", "act_outcome"):
        for statement in ("update meterbook.{} set at = at", "delete from meterbook.{}", "truncate meterbook.{}"):
            with pytest.raises(Exception, match="append-only"):
                query(database_url, statement.format(table))
    assert len(await service.book.acts()) == 1


async def test_a_server_needs_little(serve: Making) -> None:
    """Health says the process lives, readiness that the database answers; a server that is going away is not ready."""
    service = serve()
    caller = service.caller(None)
    assert [(await caller.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    service.door.is_closing = True
    told = await caller.get("/readyz")
    assert (told.status_code, told.json()["code"], told.headers["retry-after"]) == (503, "shutting_down", "1")
    assert (await caller.get("/healthz")).status_code == 200
