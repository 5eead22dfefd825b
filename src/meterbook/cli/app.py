"""The program `meterbook`: its commands, put together."""

import io
import logging
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from meterbook.cli import (
    billing,
    cutover,
    demo,
    engine,
    holding,
    imports,
    keys,
    limits,
    outbox,
    proof,
    reading,
    recording,
    running,
    serving,
    stripe,
)
from meterbook.cli.exits import MEANINGS

_EXIT_CODES = "\n\n".join(f"{code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    name="meterbook",
    help="Usage metering and billing on PostgreSQL.",
    epilog=f"Exit codes:\n\n{_EXIT_CODES}",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"meterbook {version('meterbook')}")
        raise typer.Exit


@app.callback()
def _everywhere(
    _: Annotated[
        bool, typer.Option("--version", help="Tell the version.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    pass


for part in (demo, imports, recording, reading, limits, holding, billing, outbox, running, serving, proof, engine):
    for each in part.app.registered_commands:
        app.registered_commands.append(each)
for each in outbox.app.registered_commands:
    if each.name in ("outbox", "dead-letters", "redrive"):
        stripe.app.registered_commands.append(each)
app.add_typer(stripe.app)
app.add_typer(keys.app)
app.add_typer(cutover.app)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Σ shows a question mark, not a traceback
    # The pool tells each failed attempt; a command tells the failure, once.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    app()
