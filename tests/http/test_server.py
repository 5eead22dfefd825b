"""`meterbook serve` as a process: signals, kills, slow clients, settings. Acknowledged ⊆ stored ⊆ tried, and nothing twice."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.cli.commands import Program
from tests.http.conftest import entry
from tests.http.serving import make_keys, serving
from tests.ledger import query

ON_ONE_SERVER = pytest.mark.parametrize("server", ["embedded18"], indirect=True)
KEYS = "select t.key from unnest(%s::text[]) t(key) join meterbook.event_key k on k.key = meterbook.event_key(t.key)"
ROWS = "select count(*) from meterbook.usage_log"
CLIENTS = 12
PATIENCE_S = 180


@dataclass
class Load:
    """Clients that record one entry after the other, by single requests and by batches, and note what was acknowledged."""

    address: str
    key: str
    tried: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    stopping: bool = False
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, client: int) -> None:
        async with self._caller() as caller:
            number = 0
            while not self.stopping:
                number += 1
                keys = [f"{client}:{number}:{n}" for n in range(1 if client % 2 else 20)]
                self.tried |= set(keys)
                with contextlib.suppress(httpx.TransportError):
                    await self._send(caller, keys)

    async def send_until_acknowledged(self, keys: list[str]) -> None:
        """As a client does that makes its keys once and keeps them over retries."""
        self.tried |= set(keys)
        async with self._caller() as caller:
            while not set(keys) <= self.acknowledged:
                try:
                    await self._send(caller, keys)
                except httpx.TransportError:
                    await asyncio.sleep(0.05)

    async def until_acknowledged(self, number: int) -> None:
        while len(self.acknowledged) < number:
            self._more.clear()
            await self._more.wait()

    async def _send(self, caller: httpx.AsyncClient, keys: list[str]) -> None:
        said = [entry(key, amount="0.01") for key in keys]
        if len(said) == 1:
            answer = await caller.post("/v1/entries", json=said[0])
        else:
            answer = await caller.post("/v1/entries/batch", json=said)
        if answer.status_code == 200:
            self.acknowledged |= set(keys)
            self._more.set()
        else:
            self.refused.add(answer.status_code)

    @contextlib.asynccontextmanager
    async def _caller(self) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"Authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(base_url=self.address, headers=headers, timeout=20) as caller:
            yield caller


def stored(url: str, load: Load) -> set[str]:
    """Keys of the ledger among those tried; each has one row, and there is no other."""
    keys = {key for (key,) in query(url, KEYS, sorted(load.tried))}
    assert query(url, ROWS) == [(len(keys),)]
    return keys


@ON_ONE_SERVER
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_what_was_acknowledged_is_stored(database_url: str, tmp_path: Path, how: signal.Signals) -> None:
    """Ended or killed under load: nothing acknowledged is missing, nothing is there that was not tried, nothing is there twice."""
    with serving(database_url, tmp_path, access_log="false") as served:
        load = Load(served.address, served.keys["record"])
        clients = [asyncio.create_task(load.run(client)) for client in range(CLIENTS)]
        async with asyncio.timeout(PATIENCE_S):
            await load.until_acknowledged(500)
        served.process.send_signal(how)
        code = await asyncio.to_thread(served.process.wait, PATIENCE_S)
        load.stopping = True
        await asyncio.gather(*clients)
    assert load.acknowledged <= stored(database_url, load) <= load.tried
    assert code == (0 if how == signal.SIGTERM else -signal.SIGKILL)
    assert load.refused <= {503}
    if how == signal.SIGTERM:
        assert [each["event"] for each in served.logged()][-2:] == ["stopping", "stopped"]


@ON_ONE_SERVER
async def test_clients_that_go_on_lose_and_double_nothing(database_url: str, tmp_path: Path) -> None:
    """kill -9 again and again, a new server at the same port each time, the same keys sent until acknowledged: each is there once."""
    keys = make_keys(database_url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    load = Load(f"http://127.0.0.1:{port}", keys["record"])
    wanted = [[f"{client}:{number}" for number in range(60)] for client in range(CLIENTS)]
    singly = [[key] for group in wanted[::2] for key in group]
    together = [group[start : start + 20] for group in wanted[1::2] for start in range(0, 60, 20)]

    async def send(groups: list[list[str]]) -> None:
        for group in groups:
            await load.send_until_acknowledged(group)

    clients = [asyncio.create_task(send(singly[n::6])) for n in range(6)]
    clients += [asyncio.create_task(send(together[n::6])) for n in range(6)]
    everything = {key for group in wanted for key in group}
    async with asyncio.timeout(PATIENCE_S):
        for share in (0.2, 0.5, 1.0):
            with serving(database_url, tmp_path, keys, port=port, access_log="false"):  # which kills it in the end
                await load.until_acknowledged(int(share * len(everything)))
        await asyncio.gather(*clients)
    assert stored(database_url, load) == everything


@ON_ONE_SERVER
async def test_a_slow_client_is_cut(database_url: str, tmp_path: Path) -> None:
    """No request at all, half of its headers, half of its body: each is cut in time, and others are answered meanwhile."""
    with serving(database_url, tmp_path, header_timeout_s="1", body_pause_s="1") as served:
        head = b"POST /v1/entries HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        said = head + b"Authorization: Bearer " + served.keys["record"].encode() + b"\r\nContent-Length: 100\r\n\r\n{"
        ends = await asyncio.gather(*(_answer_to(served.port, part) for part in (b"", b"GET /healthz HTT", head, said)))
        async with httpx.AsyncClient(base_url=served.address) as caller:
            assert (await caller.get("/healthz")).status_code == 200
    assert [answer.split(b"\r\n")[0] for answer, _ in ends] == [b"", b"", b"", b"HTTP/1.1 408 Request Timeout"]
    assert all(seconds < 8 for _, seconds in ends)


async def _answer_to(port: int, said: bytes) -> tuple[bytes, float]:
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    try:
        async with asyncio.timeout(15):
            answer = await reader.read()
    except ConnectionResetError:
        answer = b""
    writer.close()
    return answer, time.monotonic() - began


@ON_ONE_SERVER
async def test_an_answer_that_is_not_taken_is_cut(database_url: str, tmp_path: Path) -> None:
    """A reader of a large export who stops reading is cut in time, and holds up nobody: no request stays in work."""
    said = [entry(f"k{n}", amount="0.01", description="x" * 500) for n in range(8000)]
    with serving(database_url, tmp_path, send_timeout_s="1", metrics_open="true") as served:
        async with httpx.AsyncClient(base_url=served.address, headers=served.headers("admin"), timeout=60) as caller:
            assert (await caller.post("/v1/entries/batch", json=said)).status_code == 200
            _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket
            authorization = served.headers("admin")["Authorization"].encode()
            writer.write(
                b"GET /v1/entries.csv?entity=user:ada HTTP/1.1\r\nHost: x\r\nAuthorization: "
                + authorization
                + b"\r\n\r\n"
            )
            async with asyncio.timeout(30):
                while "client_too_slow" not in served.log.read_text():  # noqa: ASYNC110  another process writes it
                    await asyncio.sleep(0.1)
            told = (await caller.get("/metrics")).text
        writer.close()
        assert "meterbook_http_requests_in_work 1.0" in told
        assert "fault" not in {each["event"] for each in served.logged()}


@ON_ONE_SERVER
def test_an_answer_leaves_in_one_piece(database_url: str, tmp_path: Path) -> None:
    """Head and body together, also of the last answer on a connection: one system call here, one packet there."""
    with serving(database_url, tmp_path) as served:
        for ending in (b"", b"Connection: close\r\n"):
            with socket.create_connection(("127.0.0.1", served.port), timeout=10) as caller:
                caller.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + ending + b"\r\n")
                piece = caller.recv(65_536)
            assert piece.startswith(b"HTTP/1.1 200 OK\r\n")
            assert piece.endswith(b'\r\n\r\n{"status":"ok"}')


@ON_ONE_SERVER
def test_an_idle_connection_is_answered_again(database_url: str, tmp_path: Path) -> None:
    """The time limit of headers counts from a request's first byte, not through the pause between two requests."""
    with (
        serving(database_url, tmp_path, header_timeout_s="1") as served,
        httpx.Client(base_url=served.address) as caller,
    ):
        assert caller.get("/healthz").status_code == 200
        time.sleep(1.5)
        assert caller.get("/healthz").status_code == 200


@ON_ONE_SERVER
def test_an_idle_server_is_small_and_works(database_url: str, tmp_path: Path) -> None:
    """Under 200 MB; the worker beside it folds what is recorded, so that nothing waits as a delta."""
    with serving(database_url, tmp_path) as served:
        with httpx.Client(base_url=served.address, headers=served.headers("admin")) as caller:
            assert caller.post("/v1/entries", json=entry()).status_code == 200
            deadline = time.monotonic() + 20
            while query(database_url, "select count(*) from meterbook.usage_delta") != [(0,)]:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        status = Path(f"/proc/{served.process.pid}/status")
        if status.exists():
            (resident,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmRSS"))
            assert int(resident) < 200 * 1024
        assert served.end() == 0
        logged = served.logged()
    assert {each["event"] for each in logged} >= {"serving", "working", "request", "stopping", "stopped"}
    assert not [key for key in served.keys.values() if key in served.log.read_text()]


@ON_ONE_SERVER
def test_a_port_that_is_taken_is_told(meterbook: Program) -> None:
    """In a sentence, with exit code 2, before the ledger is opened."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = meterbook("serve", "--port", str(taken.getsockname()[1]))
    assert told.code == 2
    assert "can't listen at 127.0.0.1 port" in told.err


@pytest.fixture
def meterbook(database_url: str, tmp_path: Path) -> Program:
    return Program(database_url, tmp_path)


@ON_ONE_SERVER
def test_config_says_what_holds_and_from_where(meterbook: Program, tmp_path: Path) -> None:
    """Options over the environment over the file over defaults; secrets as stars; a variable that sets nothing is named."""
    (tmp_path / "meterbook.toml").write_text('port = 9001\nhost = "0.0.0.0"\nshutdown_s = 7\n')
    variables = {"PORT": "9002", "HOST": "::1", "STRIPE_API_KEY": "sk_test_1", "PROT": "1"}
    told = meterbook(
        "config", "--json", "--port", "9003", given=b"", **{f"METERBOOK_{n}": v for n, v in variables.items()}
    )
    found = {each["name"]: (each["value"], each["source"]) for each in told.data["settings"]}
    assert (told.code, told.data["unknown"]) == (1, ["METERBOOK_PROT"])
    assert found["port"] == ("9003", "option --port")
    assert found["host"] == ("::1", "METERBOOK_HOST")
    assert found["shutdown_s"] == ("7", "meterbook.toml")
    assert found["keep_alive_s"] == ("30", "default")
    assert found["stripe_api_key"] == ("********", "METERBOOK_STRIPE_API_KEY")
    assert found["url"] == ("********", "METERBOOK_URL")
    assert "sk_test_1" not in told.out


@ON_ONE_SERVER
@pytest.mark.parametrize(
    ("file", "variables", "said"),
    [
        ("prot = 1\n", {}, "prot"),
        ("port = 'x'\n", {}, "METERBOOK_PORT"),
        ("port = ", {}, "meterbook.toml"),
        ("", {"METERBOOK_BODY_PAUSE_S": "0"}, "METERBOOK_BODY_PAUSE_S"),
        ("", {"METERBOOK_CONFIG": "nowhere.toml"}, "nowhere.toml"),
    ],
)
def test_settings_that_are_wrong_are_named(
    meterbook: Program, tmp_path: Path, file: str, variables: dict[str, str], said: str
) -> None:
    """A misspelt name, a wrong value, a broken file: exit code 2 and a sentence, nothing is served."""
    (tmp_path / "meterbook.toml").write_text(file)
    told = meterbook("serve", "--json", given=b"", **variables)
    assert (told.code, told.error["code"]) == (2, "invalid_settings")
    assert said in told.error["message"]


@ON_ONE_SERVER
def test_keys_are_made_on_the_command_line(meterbook: Program) -> None:
    """Made, listed without the key, rotated, revoked; each act is in the audit log with who did it."""
    made = meterbook("keys", "create", "app", "--scope", "record", "--scope", "read", "--json").data
    assert made["text"].startswith(f"mb_{made['key']['prefix']}_")
    key = str(made["key"]["id"])
    listed = meterbook("keys", "list")
    assert made["key"]["prefix"] in listed.out
    assert made["text"] not in listed.out
    assert meterbook("keys", "rotate", key, "--json").data["key"]["replaces"] == int(key)
    assert meterbook("keys", "revoke", key, "--json").data == {"revoked": True}
    assert meterbook("keys", "revoke", key, "--json").data == {"revoked": False}
    assert meterbook("keys", "revoke", "77").code == 2
    assert meterbook("keys", "create", "app", "--scope", "write").code == 2
    assert meterbook("keys", "create", "x", "--scope", "read").out.splitlines()[-1].startswith("mb_")
