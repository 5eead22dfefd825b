"""The gate with a client in a Book's place: the ledger is behind a server in another process."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import FastAPI, Header

from meterbook.client import AsyncClient
from meterbook.integrations.fastapi import Gate, answer_problems
from tests.http.serving import Served, serving
from tests.integrations.callers import total

pytestmark = pytest.mark.parametrize("server", ["embedded18"], indirect=True)


def who(x_user: Annotated[str, Header()]) -> str:
    return x_user


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    with serving(database_url, tmp_path) as made:
        yield made


@pytest.mark.parametrize("hold", [None, "0.20"])
async def test_a_gate_asks_and_records_by_a_client(served: Served, database_url: str, hold: str | None) -> None:
    """With a check or a hold: what the route costs is in the server's ledger when its answer arrives."""
    async with AsyncClient(served.address, served.keys["record"]) as client:
        app = FastAPI()
        answer_problems(app)
        gate = Gate(ledger=lambda _: client, actor=who, source="api", description="answer", amount="0.25", hold=hold)

        @app.get("/answer", dependencies=[gate.answered])
        async def answer() -> str:
            return "42"

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as caller:
            said = await caller.get("/answer", headers={"x-user": "u"})
    assert (said.status_code, total(database_url)) == (200, Decimal("0.25"))


async def test_a_gate_before_an_absent_server_denies(served: Served, database_url: str) -> None:
    """Nobody can say whether the work may begin: it does not, and the route is not run."""
    served.end()
    ran = []
    async with AsyncClient(served.address, served.keys["record"]) as client:
        app = FastAPI()
        answer_problems(app)
        gate = Gate(ledger=lambda _: client, actor=who, source="api", description="answer", amount="0.25")

        @app.get("/answer", dependencies=[gate.answered])
        async def answer() -> str:
            ran.append(1)
            return "42"

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as caller:
            said = await caller.get("/answer", headers={"x-user": "u"})
    assert said.is_error
    assert not ran
    assert total(database_url) == 0
    assert said.json()["admission"]["code"] == "unreachable"
