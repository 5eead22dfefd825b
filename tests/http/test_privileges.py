"""What the server's own database login needs, as docs/operating/serving.md says; what it lacks is answered with 501."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

import meterbook
from meterbook.http.app import make_app
from meterbook.http.door import Door
from meterbook.settings import Settings
from tests.conftest import Clock
from tests.http.conftest import BASE, entry
from tests.http.serving import make_keys
from tests.postgres.test_roles import login

WORK = [
    ("POST", "/v1/entries", entry()),
    ("POST", "/v1/entries/batch?partial=true", [entry("b"), entry("b", amount="7")]),
    ("POST", "/v1/cumulative", {"actor": "ada", "request": "r", "total": "1", "source": "s", "description": "d"}),
    ("PUT", "/v1/organizations", {"organization": "acme", "owner": "olga"}),
    ("PUT", "/v1/members", {"organization": "acme", "user": "ada"}),
    ("PUT", "/v1/workspaces", {"workspace": "w", "payer": "organization:acme"}),
    ("POST", "/v1/grants", {"entity": "user:bob", "amount": "1", "grant_id": "g"}),
    ("POST", "/v1/blocks", {"entity": "user:bob", "reason": "administrative"}),
    ("POST", "/v1/attributions", {"actor": "ada"}),
    ("POST", "/v1/checks", {"actor": "zoe"}),
    ("POST", "/v1/holds", {"actor": "zoe", "amount": "1", "hold_id": "h"}),
    ("POST", "/v1/holds", {"actor": "zoe", "amount": "1", "hold_id": "h"}),
    ("POST", "/v1/holds/settle", {"hold_id": "h", "amount": "0.5", "source": "s", "description": "d"}),
    ("GET", "/v1/explain/check?actor=zoe", None),
    ("GET", "/readyz", None),
]
LOOK = [
    ("GET", "/v1/usage?entity=user:bob", None),
    ("GET", "/v1/entries?entity=user:bob", None),
    ("GET", "/v1/holds?entity=user:bob", None),
    ("PUT", "/v1/limits", {"entity": "organization:acme", "amount": "50"}),
    ("GET", "/v1/keys", None),
    ("GET", "/v1/audit", None),
]
KEEP = [("POST", "/v1/keys", {"name": "n", "scopes": ["read"]})]


@asynccontextmanager
async def caller(database_url: str, clock: Clock, *roles: str) -> AsyncIterator[httpx.AsyncClient]:
    """An admin of a server whose login has these roles alone."""
    key = make_keys(database_url)["admin"]
    with login(database_url, *roles) as url:
        async with meterbook.open(url, clock=clock) as book:
            app = make_app(Door(book, Settings(access_log=False)))
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url=BASE, headers={"Authorization": f"Bearer {key}"}
            ) as made:
                yield made


@pytest.mark.parametrize(
    ("roles", "works", "lacks"),
    [
        (("meterbook_writer",), WORK, LOOK + KEEP),
        (("meterbook_writer", "meterbook_reader"), WORK + LOOK, KEEP),
        (("meterbook_writer", "meterbook_reader", "meterbook_keeper"), WORK + LOOK + KEEP, []),
    ],
    ids=["writer", "reader besides", "keeper besides"],
)
async def test_a_login_may_what_its_roles_may(
    database_url: str,
    clock: Clock,
    roles: tuple[str, ...],
    works: list[tuple[str, str, object]],
    lacks: list[tuple[str, str, object]],
) -> None:
    """A writer records and administers; who reads, or makes keys, needs the role for it."""
    async with caller(database_url, clock, *roles) as admin:
        done = [(path, (await admin.request(method, path, json=said)).status_code) for method, path, said in works]
        refused = [await admin.request(method, path, json=said) for method, path, said in lacks]
    assert {each for each in done if each[1] != 200} <= {
        ("/v1/limits", 409)
    }  # not a plan whose limit is anybody's to set
    assert {(each.status_code, each.json()["code"]) for each in refused} <= {(501, "not_permitted")}
