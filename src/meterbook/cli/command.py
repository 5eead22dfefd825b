"""What all commands share: their common options, and turning an error into an exit code."""

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from meterbook.cli.exits import Exit, tell
from meterbook.cli.screen import console
from meterbook.errors import InvalidSettings, MeterbookError
from meterbook.settings_file import read_file

P = ParamSpec("P")
NewLoop = Callable[[], asyncio.AbstractEventLoop]
Work = Callable[Concatenate["Session", P], Coroutine[Any, Any, Exit]]

DEFAULT_HOME = Path(".meterbook")


@dataclass(frozen=True, slots=True)
class Session:
    """Where a command works and how it answers: the options that every command has."""

    url: str | None
    home: Path
    catalog: Path | None
    demo: bool
    json: bool


_PANEL = "Everywhere"
_COMMON: dict[str, Any] = {
    "url": Annotated[
        str | None,
        typer.Option(
            envvar="METERBOOK_URL",
            help="A PostgreSQL database, postgresql://…; without one, the embedded engine.",
            show_default=False,
            rich_help_panel=_PANEL,
        ),
    ],
    "home": Annotated[
        Path,
        typer.Option(envvar="METERBOOK_HOME", help="Folder of the embedded engine.", rich_help_panel=_PANEL),
    ],
    "catalog": Annotated[
        Path | None,
        typer.Option(
            envvar="METERBOOK_CATALOG",
            help="A catalog of plans, TOML; without one, the shipped example.",
            show_default=False,
            rich_help_panel=_PANEL,
        ),
    ],
    "demo": Annotated[
        bool,
        typer.Option(
            "--demo", help="In the ledger of `meterbook demo`, when its month has been billed.", rich_help_panel=_PANEL
        ),
    ],
    "json": Annotated[
        bool, typer.Option("--json", help="Answer in JSON; amounts are strings.", rich_help_panel=_PANEL)
    ],
}
_DEFAULTS: dict[str, object] = {"url": None, "home": DEFAULT_HOME, "catalog": None, "demo": False, "json": False}


def with_file(session: Session) -> Session:
    """What neither an option nor the environment says is read from the file of `serve`. Raises `InvalidSettings`."""
    said = {name: value for name, value in read_file().items() if name in ("url", "home", "catalog")}
    wrong = [f"{name}: is not a text" for name, value in said.items() if not isinstance(value, str)]
    if wrong:
        raise InvalidSettings(wrong)
    home = Path(said["home"]) if "home" in said and session.home == DEFAULT_HOME else session.home
    catalog = Path(said["catalog"]) if "catalog" in said and session.catalog is None else session.catalog
    return replace(session, url=session.url or said.get("url"), home=home, catalog=catalog)


def command(
    app: typer.Typer, *names: str, loop: NewLoop | None = None, reads_settings: bool = False
) -> Callable[[Work[P]], Callable[..., None]]:
    """Registers an asynchronous function as a command: its own parameters, then the common ones as a Session.

    The function gives the exit code; a MeterbookError that it raises is told on standard error. One that `reads_settings` by itself gets
    the options as they were given.
    """

    def register(work: Work[P]) -> Callable[..., None]:
        called: Callable[..., Coroutine[Any, Any, Exit]] = work

        @wraps(work)
        def run(**given: Any) -> None:
            session = Session(**{option: given.pop(option) for option in _COMMON})
            raise typer.Exit(
                _outcome(session, lambda: called(session if reads_settings else with_file(session), **given), loop)
            )

        own = list(inspect.signature(work).parameters.values())[1:]
        run.__signature__ = inspect.Signature([*own, *_common_parameters()])  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in own} | _COMMON
        app.command(names[0])(run)
        for alias in names[1:]:
            app.command(alias, hidden=True)(run)
        return run

    return register


def _common_parameters() -> list[inspect.Parameter]:
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(name, kind, default=_DEFAULTS[name], annotation=annotation)
        for name, annotation in _COMMON.items()
    ]


def _outcome(session: Session, work: Callable[[], Coroutine[Any, Any, Exit]], loop: NewLoop | None) -> Exit:
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(work())
    except MeterbookError as error:
        return tell(error, as_data=session.json)
    except KeyboardInterrupt:
        console(sys.stderr).print("interrupted: what was acknowledged is recorded; the same command goes on from there")
        return Exit.INTERRUPTED
