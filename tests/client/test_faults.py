"""Kills: of the server under load, of the client while it spools. Acknowledged ⊆ stored ⊆ tried, and nothing twice."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

import tests.client.filler
from meterbook.client import AsyncClient, Client, Receipt
from meterbook.errors import ClientClosed
from tests.client.conftest import ON_ONE_SERVER, House
from tests.client.unruly import CUT_AFTER, CUT_BEFORE, Asked, Instead, Unruly, answer
from tests.http.serving import make_keys, serving
from tests.ledger import query

D = Decimal
SAID: dict[str, Any] = {"source": "workflow", "description": "gpt-4o"}
WORKERS = 8
EACH = 60
FILLERS = 3
ACKNOWLEDGED = 150
"""Of each filler, before it is killed."""


@ON_ONE_SERVER
async def test_kills_of_the_server_lose_and_double_nothing(database_url: str, tmp_path: Path) -> None:
    """kill -9 under load, a new server at the same port each time: what was recorded is stored at once, what was spooled in the end."""
    keys = make_keys(database_url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    receipts: list[Receipt] = []

    async def work(client: AsyncClient, worker: int) -> None:
        for number in range(EACH):
            call = client.enqueue if worker % 4 == 0 else client.record
            receipts.append(await call(f"w{worker}", amount="0.01", event_key=f"{worker}:{number}", **SAID))
            await asyncio.sleep(0.02)

    async with AsyncClient(
        f"http://127.0.0.1:{port}", keys["record"], spool=tmp_path / "spool", deadline_s=0.3, timeout_s=10
    ) as client:
        workers = [asyncio.create_task(work(client, worker)) for worker in range(WORKERS)]
        for share in (0.2, 0.5):
            with serving(database_url, tmp_path, keys, port=port, access_log="false"):  # which kills it in the end
                while len(receipts) < share * WORKERS * EACH:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            recorded = {str(receipt.event_keys[0]) for receipt in receipts if receipt.is_recorded}
            assert recorded <= _stored(database_url, recorded)
        await asyncio.gather(*workers)
        assert client.spooled().calls > 0
        with serving(database_url, tmp_path, keys, port=port, access_log="false"):
            left = await client.flush(60)
    everything = {f"{worker}:{number}" for worker in range(WORKERS) for number in range(EACH)}
    assert (left.calls, left.refused) == (0, 0)
    assert {receipt.state for receipt in receipts} == {"recorded", "spooled"}
    assert _stored(database_url, everything) == everything
    assert query(database_url, "select count(*), sum(amount) from meterbook.usage_log") == [
        (len(everything), D("0.01") * len(everything))
    ]


def _stored(database_url: str, keys: set[str]) -> set[str]:
    found = query(
        database_url,
        "select t.key from unnest(%s::text[]) t(key) join meterbook.event_key k on k.key = meterbook.event_key(t.key)",
        sorted(keys),
    )
    return {key for (key,) in found}


def _sometimes(asked: Asked) -> Instead | None:
    gone = Instead(says=answer(503))
    return (CUT_AFTER, gone, None, CUT_BEFORE, gone, None, None)[asked.number // 3 % 7]


@ON_ONE_SERVER
def test_kills_of_the_client_lose_and_double_nothing(house: House, unruly: Unruly, actor: str, tmp_path: Path) -> None:
    """kill -9 while four threads record and the sender sends, three times in one folder: all acknowledged is stored in the end."""
    unruly.decide = _sometimes
    tried: set[str] = set()
    acknowledged: set[str] = set()
    for name in range(FILLERS):
        said = _fill_and_kill(unruly.url, house.key, tmp_path, actor, str(name))
        tried |= {key for what, key in said if what == "tried"}
        acknowledged |= {key for what, key in said if what == "acknowledged"}
    assert len(acknowledged) >= FILLERS * ACKNOWLEDGED
    with Client(house.url, house.key, spool=tmp_path) as client:
        left = client.flush(60)
    assert (left.calls, left.refused) == (0, 0)
    stored = house.stored(sorted(tried))
    assert acknowledged <= stored
    assert len(house.amounts(actor)) == len(stored)


def _fill_and_kill(url: str, key: str, folder: Path, actor: str, name: str) -> list[tuple[str, str]]:
    command = [sys.executable, tests.client.filler.__file__, url, key, str(folder), actor, name]
    said: list[tuple[str, str]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while sum(what == "acknowledged" for what, _ in said) < ACKNOWLEDGED:
            said.append(_line(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        said += [_line(line) for line in process.stdout if line.endswith("\n")]
    return said


def _line(line: str) -> tuple[str, str]:
    what, _, key = line.rstrip("\n").partition(" ")
    assert key, "the process has ended"
    return what, key


@ON_ONE_SERVER
async def test_a_full_server_gets_everything_in_the_end(database_url: str, tmp_path: Path) -> None:
    """It takes two requests at once and refuses the others: each is tried again with its key, and is there once."""
    with serving(database_url, tmp_path, requests_max="2", access_log="false", metrics_open="true") as served:
        async with AsyncClient(served.address, served.keys["record"], deadline_s=60) as client:
            receipts = await asyncio.gather(*(client.record(f"w{n % 5}", amount="0.01", **SAID) for n in range(60)))
            assert all(receipt.is_recorded for receipt in receipts)
        refused = re.search(
            r'^meterbook_http_requests_total\{[^}]*status="503"[^}]*\} (\d+)',
            (await asyncio.to_thread(httpx.get, f"{served.address}/metrics")).text,
            re.MULTILINE,
        )
    assert refused is not None
    assert int(refused[1]) > 0
    assert query(database_url, "select count(*) from meterbook.usage_log") == [(60,)]


@ON_ONE_SERVER
def test_a_fork_is_told_to_open_its_own(house: House, actor: str, tmp_path: Path) -> None:
    """Two processes in one folder would send and remove each other's calls."""
    with Client(house.url, house.key, spool=tmp_path) as client:
        child = os.fork()
        if child == 0:
            try:
                client.record(actor, amount="1", **SAID)
            except ClientClosed:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert client.record(actor, amount="1", **SAID).is_recorded


@pytest.mark.parametrize("module", ["meterbook", "meterbook.client", "meterbook.sync"])
def test_embedding_brings_nothing_of_the_server(module: str) -> None:
    """No database driver, no web framework, no Stripe: what is loaded by an import, seen in a process of its own."""
    asked = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    ours = {name.split(".")[1] for name in loaded if name.startswith("meterbook.")}
    assert module in loaded
    assert ours <= {"catalogs", "client", "core", "errors", "sync"}
    assert {name.split(".")[2] for name in loaded if name.startswith("meterbook.sync.")} <= {"client"}
    others = {"psycopg", "psycopg_pool", "litestar", "uvicorn", "stripe", "typer", "msgspec", "pydantic", "requests"}
    assert others & {name.partition(".")[0] for name in loaded} == set()


def test_the_driver_comes_when_it_is_asked_for() -> None:
    """`meterbook.open` and `Book` are there as ever, in both faces; a name that is none is none."""
    asked = (
        "import sys, meterbook, meterbook.sync; assert 'psycopg' not in sys.modules; meterbook.Book, meterbook.sync.open;"
        "assert 'psycopg' in sys.modules; from meterbook import *; print(open, Book, hasattr(meterbook, 'opne'))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
    assert "meterbook.book" in done.stdout
