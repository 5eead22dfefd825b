"""A server in a process of its own, as `meterbook serve` starts it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import meterbook.sync
from meterbook.core.api_keys import SCOPES

ADDRESS = "meterbook serves "
WAIT_S = 60


@dataclass
class Served:
    """`keys`: one of each scope."""

    process: subprocess.Popen[str]
    address: str
    keys: dict[str, str]
    log: Path
    port: int = field(init=False)

    def __post_init__(self) -> None:
        self.port = int(self.address.rpartition(":")[2])

    def headers(self, scope: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[scope]}"}

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(WAIT_S)


def make_keys(url: str) -> dict[str, str]:
    with meterbook.sync.open(url) as book:
        return {scope: book.make_key(scope, scopes=[scope], by="the tests").text for scope in SCOPES}


@contextmanager
def serving(url: str, folder: Path, keys: dict[str, str] | None = None, **settings: str) -> Iterator[Served]:
    """Until the block ends; `settings` by their names. Its log is in `folder`."""
    made = make_keys(url) if keys is None else keys
    kept = {name: value for name, value in os.environ.items() if not name.startswith("METERBOOK_")}
    told = {f"METERBOOK_{name.upper()}": value for name, value in settings.items()}
    log = folder / "server.log"
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "meterbook.cli", "serve", "--port", settings.get("port", "0")],
            cwd=folder,
            env={**kept, "METERBOOK_URL": url, **told},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line.startswith(ADDRESS), log.read_text()
        yield Served(process, line.removeprefix(ADDRESS), made, log)
    finally:
        process.kill()
        process.wait(WAIT_S)
        if process.stdout is not None:
            process.stdout.close()
