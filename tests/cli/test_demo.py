"""``meterbook demo``: what a newcomer sees first; with --serve, what `make run` starts."""

import json
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.commands import PROGRAM, TIMEOUT_S, Done, Program

ELSEWHERE = "postgresql://127.0.0.1:1/nowhere"


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return Program(None, tmp_path_factory.mktemp("newcomer"))


@pytest.fixture(scope="module")
def first(newcomer: Program) -> Done:
    return newcomer("demo", METERBOOK_URL=ELSEWHERE, COLUMNS="80")


def test_the_demo_says_what_it_is_and_that_it_adds_up(first: Done) -> None:
    """Synthetic, seeded, verified; and made-up rows never go where METERBOOK_URL points."""
    assert first.code == 0, first.err
    assert "Synthetic and seeded" in first.out
    assert "verify: clean" in first.out


def test_the_demo_ends_with_a_month_billed(first: Done) -> None:
    """Thresholds, credits and final charges, and one bill explained: what pays adds up to it."""
    for said in ("Bills of May, closed", "threshold, ", "final, ", "Why organization:acme was billed", "written off"):
        assert said in first.out
    tree = first.out.split("was billed what it was:")[1]
    bill, credits_, charged = (Decimal(_value_of(name, tree)) for name in ("bill", "  paid by credits", "  charged"))
    assert bill == credits_ + charged > 100


def _value_of(name: str, tree: str) -> str:
    (line,) = (line for line in tree.splitlines() if line.startswith(f"{name}  "))
    return line.removeprefix(name).split()[0]


def test_the_demo_fits_the_terminal(newcomer: Program, first: Done) -> None:
    """Played in 80 columns and again in 120: no line is folded in a table or longer than the terminal, but the commands to copy."""
    for width, done in ((80, first), (120, newcomer("demo", COLUMNS="120"))):
        shown = done.out.split("Look around in it:")[0]
        assert max(map(len, shown.splitlines())) <= width


def test_the_commands_that_the_demo_names_work(newcomer: Program, first: Done) -> None:
    """As they are printed, on what it has just recorded."""
    named = first.out.split("Look around in it:")[1].strip().splitlines()
    assert len(named) >= 3
    for line in named:
        done = newcomer(*line.strip().removeprefix("meterbook ").split())
        assert (done.code, done.err) == (0, ""), line


def test_playing_the_month_again_adds_nothing(newcomer: Program, first: Done) -> None:
    """Every entry is known by its key, every conflict is refused again, and the totals stay."""
    done = newcomer("demo", "--json")
    assert done.code == 0, done.err
    again = done.data
    assert (again["played"]["inserted"], again["played"]["amount"]) == (0, "0.00")
    assert again["played"]["conflicts"] == 12
    assert sum(Decimal(each["total"]) for each in again["by_entity"]) == Decimal(again["total"])
    assert f"{again['total']} in all" in first.out


def test_a_catalog_is_never_ignored(newcomer: Program, tmp_path: Path) -> None:
    """Unknown is an error, never a default: neither is a catalog that can't be read, where the demo would do without."""
    broken = tmp_path / "broken.toml"
    broken.write_text("[plans.pro]\nprice = 20\n")
    done = newcomer("check", "ida", "--demo", "--catalog", str(broken))
    assert done.code != 0
    assert "plans.free: missing" in done.err


# --------------------------------------------------------------------------------------------------------------- served


class Served:
    """What `meterbook demo --serve --json` says before it waits."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        assert lines, process.wait(TIMEOUT_S)
        self.process = process
        self.said: dict[str, Any] = json.loads("".join(lines))

    def run(self, curl: str) -> Any:
        """What a line for curl would be answered."""
        arguments = iter(shlex.split(curl)[1:])
        address, headers, body = "", {}, None
        for argument in arguments:
            match argument:
                case "-s":
                    pass
                case "-H":
                    name, _, value = next(arguments).partition(": ")
                    headers[name] = value
                case "-d":
                    body = next(arguments)
                case _:
                    address = argument
        answer = httpx.request("GET" if body is None else "POST", address, headers=headers, content=body)
        assert answer.headers["meterbook-data"] == "demo"
        answer.raise_for_status()
        return answer.json()


@contextmanager
def serving(newcomer: Program, *arguments: str) -> Iterator[Served]:
    """As `make run` does; `newcomer` has billed the month already."""
    process = subprocess.Popen(
        [*PROGRAM, "demo", "--serve", "--json", *arguments],
        cwd=newcomer.directory,
        env=newcomer.environment({"METERBOOK_URL": ELSEWHERE}),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Served(process)
    finally:
        process.send_signal(signal.SIGINT)
        ended = process.wait(TIMEOUT_S)
        if process.stdout is not None:
            process.stdout.close()
    assert ended == 0  # Ctrl-C is how it ends


@contextmanager
def taking(port: int) -> Iterator[None]:
    """By us, or by whoever has it already."""
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


def test_the_demo_is_served_and_says_that_it_is_one(newcomer: Program, first: Done) -> None:
    """One command: an address, a key that signs in, a customer's page, and lines that record and read; all of it labelled."""
    assert first.code == 0
    with serving(newcomer, "--port", "0") as demo, httpx.Client(follow_redirects=True) as person:
        said = demo.said
        assert "Sign in" in person.get(said["console"]).text
        page = person.post(f"{said['console']}/login", data={"key": said["key"], "next": "/console"}).text
        for shown in (page, httpx.get(said["customer"]).text, httpx.get(f"{said['console']}/login").text):
            assert "Demo data." in shown
        assert "2026-06-11 so far" in page
        before = demo.run(said["read"])
        recorded, again = demo.run(said["record"]), demo.run(said["record"])
        assert (recorded["inserted"], again["inserted"], again["replayed"]) == (1, 0, 1)
        after = demo.run(said["read"])
        assert Decimal(after["total"]) - Decimal(before["total"]) == Decimal("0.0123")


def test_serving_the_demo_again_doubles_nothing(newcomer: Program, first: Done) -> None:
    """The same figures, a key of its own; the key of the start before has ended. A port that is taken gives way."""
    assert first.code == 0
    with serving(newcomer, "--port", "0") as demo:
        key, reports = demo.said["key"], demo.run(demo.said["read"])
    with taking(8080), serving(newcomer) as demo:
        assert not demo.said["address"].endswith(":8080")
        assert demo.run(demo.said["read"]) == reports
        address, headers = f"{demo.said['address']}/v1/usage", {"Authorization": f"Bearer {key}"}
        assert httpx.get(address, params={"entity": "user:ida"}, headers=headers).status_code == 401
    assert newcomer("verify", "--demo").code == 0


def test_a_port_that_was_asked_for_is_not_another_one(newcomer: Program, first: Done) -> None:
    """Taken: it says so, and nothing is played or served."""
    assert first.code == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = newcomer("demo", "--serve", "--port", str(taken.getsockname()[1]))
    assert (done.code, "can't listen at 127.0.0.1" in done.err) == (2, True)


def test_made_up_rows_never_come_among_real_ones(tmp_path: Path) -> None:
    """A ledger that somebody uses is no demo, wherever it lies: it is left as it was."""
    meterbook = Program(None, tmp_path)
    real = ("--home", "real/demo")
    said = ("--source", "s", "--description", "d", "--amount", "1", "--event-key", "k")
    assert meterbook("record", "u", *said, *real).code == 0
    for arguments in (["demo"], ["demo", "--serve", "--port", "0"]):
        done = meterbook(*arguments, "--home", "real")
        assert (done.code, "is no demo" in done.err) == (2, True), done.err
    assert meterbook("entries", "user:u", *real, "--json").data["summary"]["count"] == 1
