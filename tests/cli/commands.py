"""Runs the program as a person or a script does."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.forked import Forked

ON_ONE_SERVER = pytest.mark.parametrize("server", ["embedded18"], indirect=True)
"""A process a command is slow, and what a command does differs by no server."""

PROGRAM = [sys.executable, "-m", "meterbook.cli"]
TIMEOUT_S = 120


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


@dataclass(frozen=True)
class Program:
    """``meterbook`` in a working directory, on a database (None: the embedded engine of that directory)."""

    url: str | None
    directory: Path

    def __call__(self, *arguments: str, given: bytes = b"", **environment: str) -> Done:
        started = Forked(arguments, self.directory, self.environment(environment), given)
        code, out, err = started.communicate(TIMEOUT_S)
        return Done(code, out.decode(), err.decode())

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("METERBOOK_")}
        named = {"METERBOOK_URL": self.url} if self.url else {}
        return {**kept, "PYTHONUTF8": "1", **named, **(more or {})}
