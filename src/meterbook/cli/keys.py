"""``meterbook keys``: who may ask the HTTP door for what."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from meterbook.cli.acting import by_whom
from meterbook.cli.command import Session, command
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_book
from meterbook.cli.reading import time_asked
from meterbook.cli.screen import console, table, time_shown
from meterbook.core.api_keys import SCOPES, ApiKey, NewApiKey
from meterbook.plain import json_text

app = typer.Typer(name="keys", help="API keys of the HTTP door: make, list, rotate, revoke.", no_args_is_help=True)
KeyId = Annotated[int, typer.Argument(metavar="ID", help="As `keys list` shows it.", show_default=False)]


@command(app, "create")
async def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What it is for.", show_default=False)],
    scope: Annotated[
        list[str], typer.Option(help=f"{', '.join(SCOPES)}; several times for several.", show_default=False)
    ],
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="Works until then.", show_default=False)] = None,
) -> Exit:
    """Make a key and say it, this once: the ledger keeps its digest alone."""
    expires_at = time_asked("--expires", expires)
    async with open_book(session) as book, book.act(by_whom(), "make_key", name, {"scopes": scope}):
        made = await book.make_key(name, scopes=scope, by=by_whom(), expires_at=expires_at)
    return _say(session, made)


@command(app, "rotate")
async def rotate(
    session: Session,
    key: KeyId,
    overlap: Annotated[int, typer.Option(metavar="SECONDS", help="The old one works so much longer.", min=0)] = 86_400,
) -> Exit:
    """Make a second key with the same name and scopes, and let the first end."""
    async with open_book(session) as book, book.act(by_whom(), "rotate_key", f"key {key}", {"overlap_s": overlap}):
        made = await book.replace_key(key, by=by_whom(), overlap_s=overlap)
    return _say(session, made)


@command(app, "revoke")
async def revoke(session: Session, key: KeyId) -> Exit:
    """End a key now. Servers that know it forget it within seconds."""
    async with open_book(session) as book, book.act(by_whom(), "revoke_key", f"key {key}", {}):
        ended = await book.revoke_key(key)
    print(json_text({"revoked": ended}) if session.json else f"key {key} {'ends now' if ended else 'had ended before'}")
    return Exit.DONE


@command(app, "list")
async def list_(session: Session) -> Exit:
    """Every key, newest first: what it may do and when it was last used, never the key itself."""
    async with open_book(session) as book:
        found = await book.keys()
    if session.json:
        print(json_text({"keys": found}))
    else:
        _show(found)
    return Exit.DONE


def _say(session: Session, made: NewApiKey) -> Exit:
    if session.json:
        print(json_text(made))
    else:
        on = console()
        on.print(f"key {made.key.id} ({made.key.name}), scopes {', '.join(made.key.scopes)}. It is shown this once:")
        print(made.text)
    return Exit.DONE


def _show(found: Sequence[ApiKey]) -> None:
    on = console()
    made = table(
        on, "id", "prefix", "name", "scopes", "created", "by", "last used", "ends", numbers=["id"], whole=["prefix"]
    )
    for key in found:
        ends = "revoked " + time_shown(key.revoked_at) if key.revoked_at else _time(key.expires_at)
        row = (key.prefix, key.name, ", ".join(key.scopes), time_shown(key.created_at), key.created_by)
        made.add_row(str(key.id), *row, _time(key.last_used_at), ends)
    on.print(made)


def _time(at: datetime | None) -> str:
    return "" if at is None else time_shown(at)
