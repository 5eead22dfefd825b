"""Who may do what: every route × every kind of key, and that nothing else opens a door."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from litestar.handlers import HTTPRouteHandler

from meterbook.core.api_keys import SCOPES
from meterbook.http.app import make_inner_app
from meterbook.http.door import OPEN, Door
from meterbook.settings import Settings
from tests.conftest import Clock
from tests.http.conftest import Making, Service, entry
from tests.ledger import count, query

# What each route asks of a key: the promise of docs/reference/http.md, written down once more by hand.
RECORD = {
    "POST /v1/entries",
    "POST /v1/entries/batch",
    "POST /v1/events",
    "POST /v1/cumulative",
    "POST /v1/attributions",
    "POST /v1/checks",
    "POST /v1/holds",
    "POST /v1/holds/settle",
    "POST /v1/holds/release",
}
READ = {
    "GET /v1/usage",
    "GET /v1/entries",
    "GET /v1/entries.csv",
    "GET /v1/periods",
    "GET /v1/charges",
    "GET /v1/credits",
    "GET /v1/holds",
    "GET /v1/explain",
    "GET /v1/explain/check",
    "GET /v1/members",
    "GET /metrics",
}
ADMIN = {
    "POST /v1/corrections",
    "PUT /v1/limits",
    "POST /v1/grants",
    "POST /v1/blocks",
    "DELETE /v1/blocks",
    "PUT /v1/subscriptions",
    "PUT /v1/organizations",
    "PUT /v1/organizations/owner",
    "DELETE /v1/organizations",
    "PUT /v1/members",
    "DELETE /v1/members",
    "PUT /v1/members/cap",
    "PUT /v1/workspaces",
    "DELETE /v1/users",
    "GET /v1/keys",
    "POST /v1/keys",
    "DELETE /v1/keys",
    "POST /v1/keys/rotate",
    "GET /v1/audit",
}
FREE = {"POST /stripe/webhook", "GET /healthz", "GET /readyz", "GET /v1/openapi.json"}
MAY = {"record": RECORD | FREE, "read": READ | FREE, "admin": RECORD | READ | ADMIN | FREE, "none": FREE}
MAY |= dict.fromkeys(("garbage", "revoked", "expired", "other secret"), FREE)
REFUSED = {"record": 403, "read": 403}


def handlers() -> dict[str, HTTPRouteHandler]:
    app = make_inner_app(Door(None, Settings()))  # type: ignore[arg-type]  # nothing is asked of the book
    return {
        f"{method} {path}": handler
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        if "scope" in handler.opt or route.path.startswith("/v1")
        for path in [route.path]
        for method in handler.http_methods
        if method not in ("HEAD", "OPTIONS")
    }


def test_every_route_is_in_the_table() -> None:
    """A new route without a decision about who may use it fails here; so does one that names no scope."""
    assert set(handlers()) == RECORD | READ | ADMIN | FREE
    named = {route: handler.opt.get("scope") for route, handler in handlers().items()}
    expected = {**dict.fromkeys(RECORD, "record"), **dict.fromkeys(READ, "read"), **dict.fromkeys(ADMIN, "admin")}
    assert named == {**expected, **dict.fromkeys(FREE, OPEN), "GET /metrics": "metrics"}


async def keys_of_every_kind(service: Service, clock: Clock) -> dict[str, str | None]:
    book = service.book
    kinds: dict[str, str | None] = {
        scope: (await book.make_key(scope, scopes=[scope], by="the tests")).text for scope in SCOPES
    }
    revoked = await book.make_key("revoked", scopes=["admin"], by="the tests")
    await book.revoke_key(revoked.key.id)
    expired = await book.make_key(
        "expired", scopes=["admin"], by="the tests", expires_at=clock.now + timedelta(hours=1)
    )
    sound = str(kinds["admin"])
    kinds |= {"none": None, "garbage": "mb_nonsense", "revoked": revoked.text, "expired": expired.text}
    kinds["other secret"] = sound[:-1] + ("0" if sound[-1] != "0" else "1")
    clock.now += timedelta(hours=2)
    return kinds


async def test_every_route_for_every_kind_of_key(service: Service, clock: Clock) -> None:
    """401 without a key in force, 403 without the scope, before a body or a parameter is looked at; otherwise something else."""
    kinds = await keys_of_every_kind(service, clock)
    wrong = []
    for kind, key in kinds.items():
        caller = service.caller(key)
        for route in handlers():
            method, path = route.split()
            answer = await caller.request(method, path)
            expected_refusal = None if route in MAY[kind] else REFUSED.get(kind, 401)
            refusal = answer.status_code if answer.status_code in (401, 403) else None
            if refusal != expected_refusal:
                wrong.append((kind, route, answer.status_code))
    assert wrong == []


async def test_what_is_refused_has_no_effect(service: Service, recorder: httpx.AsyncClient, database_url: str) -> None:
    """A sound body with a key that may not: nothing is recorded, no act is noted."""
    reader = await service.with_scope("read")
    refusals = [
        await reader.post("/v1/entries", json=entry()),
        await service.caller(None).post("/v1/entries", json=entry()),
        await recorder.put("/v1/organizations", json={"organization": "acme", "owner": "ada"}),
        await recorder.post("/v1/keys", json={"name": "mine", "scopes": ["admin"]}),
    ]
    assert [each.status_code for each in refusals] == [403, 401, 403, 403]
    assert count(database_url) == 0
    assert await service.book.acts() == []
    assert "WWW-Authenticate" in refusals[1].headers


async def test_keys_that_are_refused_are_told_alike(service: Service, clock: Clock) -> None:
    """Unknown, revoked, expired and altered keys get the same words: nobody learns which prefixes there are."""
    kinds = await keys_of_every_kind(service, clock)
    unknown = "mb_" + "0" * 12 + "_" + "0" * 64
    told = set()
    for key in (unknown, kinds["revoked"], kinds["expired"], kinds["other secret"], kinds["garbage"]):
        problem = (await service.caller(key).get("/v1/keys")).json()
        problem.pop("request_id")
        told.add(str(sorted(problem.items())))
    assert len(told) == 1


async def test_a_revoked_key_is_forgotten_within_seconds(service: Service) -> None:
    """Revoked elsewhere it works until what is believed runs out; revoked here, no longer at once."""
    admin = await service.with_scope("admin")
    elsewhere = await service.book.make_key("a", scopes=["read"], by="the tests")
    here = await service.book.make_key("b", scopes=["read"], by="the tests")
    callers = [service.caller(each.text) for each in (elsewhere, here)]

    async def statuses() -> list[int]:
        return [(await caller.get("/v1/periods", params={"entity": "user:ada"})).status_code for caller in callers]

    assert await statuses() == [200, 200]
    await service.book.revoke_key(elsewhere.key.id)
    assert await statuses() == [200, 200]
    service.seconds[0] += service.door.settings.key_cache_s
    assert await statuses() == [401, 200]
    assert (await admin.delete("/v1/keys", params={"id": here.key.id})).json() == {"changed": True}
    assert await statuses() == [401, 401]


async def test_the_ledger_keeps_no_key(service: Service, database_url: str) -> None:
    """Not in the table of keys, not in the audit log: the prefix and a digest are all there is."""
    admin = await service.with_scope("admin")
    made = (await admin.post("/v1/keys", json={"name": "app", "scopes": ["record"]})).json()
    secret = made["text"].rpartition("_")[2]
    stored = str(
        query(database_url, "select k::text from meterbook.api_key k union all select l::text from meterbook.act_log l")
    )
    assert secret not in stored
    assert made["key"]["prefix"] in stored
    assert len(secret) * 4 == 256


async def test_a_key_is_rotated_with_an_overlap(service: Service, clock: Clock) -> None:
    """Both work until the overlap is over, then the new one alone; the old one can't be rotated again."""
    admin = await service.with_scope("admin")
    old = await service.book.make_key("app", scopes=["read"], by="the tests")
    new = (await admin.post("/v1/keys/rotate", json={"id": old.key.id, "overlap_s": 60})).json()
    assert (new["key"]["scopes"], new["key"]["replaces"]) == (["read"], old.key.id)
    params = {"entity": "user:ada"}

    async def statuses() -> list[int]:
        service.seconds[0] += 1000
        return [
            (await service.caller(key).get("/v1/periods", params=params)).status_code for key in (old.text, new["text"])
        ]

    assert await statuses() == [200, 200]
    clock.now += timedelta(seconds=61)
    assert await statuses() == [401, 200]
    assert (await admin.post("/v1/keys/rotate", json={"id": old.key.id})).status_code == 404


async def test_a_key_says_when_it_was_last_used(service: Service, clock: Clock) -> None:
    """To the minute, and not before it is used."""
    made = await service.book.make_key("app", scopes=["read"], by="the tests")
    assert [key.last_used_at for key in await service.book.keys()] == [None]
    await service.caller(made.text).get("/v1/periods", params={"entity": "user:ada"})
    assert [key.last_used_at for key in await service.book.keys()] == [clock.now]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"name": "x", "scopes": ["write"]}, "scopes"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "", "scopes": ["read"]}, "name"),
        ({"name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "scopes": ["read"], "expires_at": "2030-01-01T00:00:00"}, "expires_at"),
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(
    admin: httpx.AsyncClient, said: dict[str, Any], field: str
) -> None:
    """422 that names the field."""
    refused = await admin.post("/v1/keys", json=said)
    assert (refused.status_code, {each["field"] for each in refused.json()["problems"]}) == (422, {field})


async def test_metrics_are_open_only_if_the_server_is_told_so(serve: Making) -> None:
    """Otherwise they need a key that may read."""
    assert (await serve().caller(None).get("/metrics")).status_code == 401
    assert (await serve(metrics_open=True).caller(None).get("/metrics")).status_code == 200
