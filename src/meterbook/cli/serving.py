"""``meterbook serve`` and ``config``: the service, and what it is told. Both need the extra: pip install 'meterbook[server]'."""

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meterbook.cli.command import DEFAULT_HOME, Session, command, with_file
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_book
from meterbook.cli.screen import console, table
from meterbook.errors import InvalidRequest
from meterbook.plain import json_text

if TYPE_CHECKING:
    from meterbook.serving import Serving
    from meterbook.settings import Settings

MISSING = "the server is an extra: pip install 'meterbook[server]'"

app = typer.Typer()


def fast_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where it is there."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@command(app, "serve", loop=fast_loop, reads_settings=True)
async def serve(
    session: Session,
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen at; else 127.0.0.1.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="Port; else 8080. 0 takes a free one.", show_default=False)] = None,
    worker: Annotated[
        bool | None, typer.Option("--worker/--no-worker", help="Fold, sweep and relay in it, too.", show_default=False)
    ] = None,
) -> Exit:
    """Serve the HTTP API, with the worker in the same process, until SIGTERM or Ctrl-C.

    Configured by METERBOOK_… in the environment and by meterbook.toml: `meterbook config` shows what is in force.
    """
    try:
        from meterbook import serving
    except ImportError as error:
        raise InvalidRequest(f"{MISSING} ({error})") from error
    settings = reading_settings(session, host=host, port=port, worker=worker)
    opening = partial(open_book, with_file(session)) if session.demo else partial(serving.opening_of, settings)
    on = console()

    def tell(serves: "Serving") -> None:
        on.print(f"meterbook serves {serves.address}", soft_wrap=True)
        if settings.console:
            on.print(f"console at {serves.address}/console", soft_wrap=True)

    await serving.serve(settings, opening, tell)
    return Exit.DONE


@command(app, "config", reads_settings=True)
async def config(
    session: Session,
    *,
    host: Annotated[str | None, typer.Option(help="As of serve.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="As of serve.", show_default=False)] = None,
    worker: Annotated[
        bool | None, typer.Option("--worker/--no-worker", help="As of serve.", show_default=False)
    ] = None,
) -> Exit:
    """What `meterbook serve` would be told, and from where; secrets as stars. Exit code 1 if a variable sets nothing."""
    settings = reading_settings(session, host=host, port=port, worker=worker)
    from meterbook.settings import in_force, unknown_variables

    options: dict[str, object] = {**_options(session), "host": host, "port": port, "worker": worker}
    found, unknown = in_force(settings, options), unknown_variables()
    if session.json:
        print(json_text({"settings": found, "unknown": unknown}))
    else:
        on = console()
        made = table(on, "setting", "value", "from", "meaning", whole=["setting", "value"])
        for each in found:
            made.add_row(each.name, each.value, each.source, each.meaning)
        on.print(made)
        for name in unknown:
            on.print(f"{name} sets nothing: is it misspelt?", soft_wrap=True)
    return Exit.FINDINGS if unknown else Exit.DONE


def reading_settings(session: Session, **options: object) -> "Settings":
    """Raises `InvalidRequest` where the extra is not installed."""
    try:
        from meterbook.settings import read_settings
    except ImportError as error:
        raise InvalidRequest(f"{MISSING} ({error})") from error
    return read_settings(**_options(session), **options)


def _options(session: Session) -> dict[str, object]:
    """What every command has by option or by environment; a folder that is the default was not asked for."""
    home: Path | None = None if session.home == DEFAULT_HOME else session.home
    return {"url": session.url, "home": home, "catalog": session.catalog}
