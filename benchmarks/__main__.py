"""`make bench`, or `python -m benchmarks writing reading --rounds 3`."""

import argparse
import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from benchmarks import (
    bulk,
    compaction,
    console,
    cutover,
    deciding,
    holding,
    importing,
    latency,
    overload,
    reading,
    serving,
    soak,
    writing,
)
from benchmarks.machine import describe_load, describe_machine
from benchmarks.measuring import Figure
from benchmarks.options import Options
from benchmarks.report import Result, markdown, write_json, write_page
from benchmarks.server import Server, server

GROUPS: dict[str, Callable[[Server, Options], Awaitable[list[Figure]]]] = {
    "latency": latency.measure,
    "writing": writing.measure,
    "bulk": bulk.measure,
    "importing": importing.measure,
    "reading": reading.measure,
    "compaction": compaction.measure,
    "deciding": deciding.measure,
    "holding": holding.measure,
    "overload": overload.measure,
    "serving": serving.measure,
    "soak": soak.measure,
    "cutover": cutover.measure,
    "console": console.measure,
}


def main() -> None:
    asked = _arguments()
    options = Options(1 if asked.quick else asked.rounds, asked.quick, asked.soak)
    result = asyncio.run(_run(asked.groups or list(GROUPS), options))
    print("\n".join(markdown(result)))
    print(f"written: {write_json(result)}")
    if set(asked.groups or GROUPS) == set(GROUPS) and not asked.quick:
        print(f"written: {write_page(result)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Meterbook beside what it replaces.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all of them if none")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender (5)")
    parser.add_argument(
        "--soak", type=int, default=60, metavar="SECONDS", help="of full ingest (60; 600 for the real one)"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: its figures mean nothing")
    asked = parser.parse_args()
    if unknown := set(asked.groups) - set(GROUPS):
        parser.error(f"there is no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    return asked


async def _run(groups: list[str], options: Options) -> Result:
    with server() as ours:
        machine = describe_machine(ours.settings()) | {"load average before": describe_load()}
        command = f"python -m benchmarks {shlex.join(sys.argv[1:])}".strip()
        result = Result(command, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", options.rounds, machine, [])
        print("\n".join(f"{name}: {value}" for name, value in machine.items()))
        for group in groups:
            for figure in await GROUPS[group](ours, options):
                print(f"{figure.name:48} {figure.shown}", flush=True)
                result.figures.append(figure)
            ours.drop_databases()
            write_json(result)
    return result


if __name__ == "__main__":
    main()
