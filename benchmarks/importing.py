"""The Azure traces, 28 185 real calls, by the command: from starting the program to its end, with prices, keys and checks."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks.measuring import Figure, take_turns
from benchmarks.options import Options
from benchmarks.server import BUILD, Server

ROOT = Path(__file__).resolve().parent.parent
FILES = ("azure_llm_conv.csv", "azure_llm_code.csv")
MAPPING = ROOT / "examples" / "azure.toml"


async def measure(server: Server, options: Options) -> list[Figure]:
    files = [folder / name for folder in _folders() for name in FILES if (folder / name).is_file()][: len(FILES)]
    if len(files) < len(FILES):
        print(f"importing: skipped, {' and '.join(FILES)} are not here; METERBOOK_DATA names their folder")
        return []
    turn = partial(_import_twice, server, files, sum(_rows(file) for file in files))
    return await take_turns(1 if options.quick else options.rounds, [turn], "rows/s")


def _folders() -> list[Path]:
    named = os.environ.get("METERBOOK_DATA")
    return [Path(named)] if named else [ROOT.parent / "shared" / "data"]


def _rows(file: Path) -> int:
    return file.read_bytes().count(b"\n") - 1


async def _import_twice(server: Server, files: list[Path], rows: int) -> dict[str, float]:
    """Into a new database; then again, when every row is known."""
    url = server.database("importing")
    first, again = (_seconds(url, files) for _ in range(2))
    return {"importing/first": rows / first, "importing/again": rows / again}


def _seconds(url: str, files: list[Path]) -> float:
    started = perf_counter()
    for file in files:
        command = [
            sys.executable, "-m", "meterbook.cli", "import", str(file), "--mapping", str(MAPPING), "--json",
            "--rejects", str(BUILD / f"{file.name}.rejects.csv"),
        ]  # fmt: skip
        subprocess.run(command, env=os.environ | {"METERBOOK_URL": url}, stdout=subprocess.DEVNULL, check=True)
    return perf_counter() - started
