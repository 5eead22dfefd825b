"""``meterbook demo --serve``: the demo's month behind the API and the console, and what to try first."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from meterbook.book import Book
from meterbook.cli.acting import by_whom
from meterbook.cli.command import Session
from meterbook.cli.demo_screen import program_name
from meterbook.cli.opening import DEMO_FOLDER, open_demo
from meterbook.cli.screen import console
from meterbook.cli.serving import reading_settings
from meterbook.demo import cast
from meterbook.demo.bill import EXPLAINED
from meterbook.demo.play import DemoClock, find_latest
from meterbook.plain import json_text

if TYPE_CHECKING:
    from meterbook.serving import Serving

KEY_NAME = "demo"
LINK_DAYS = 7
TRIED = '{"actor": "ada", "source": "workflow", "description": "gpt-4o", "amount": "0.0123", "event_key": "mine_1"}'
Preparing = Callable[[Book, DemoClock], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Door:
    """What opens it. `customer`: a link to the page of one payer."""

    address: str
    key: str
    customer: str

    @property
    def console(self) -> str:
        return f"{self.address}/console"

    @property
    def recording(self) -> str:
        return f"curl -s {self.address}/v1/entries {self._header} -H 'Content-Type: application/json' -d '{TRIED}'"

    @property
    def reading(self) -> str:
        return f"curl -s '{self.address}/v1/usage?entity={EXPLAINED}' {self._header}"

    @property
    def _header(self) -> str:
        return f"-H 'Authorization: Bearer {self.key}'"


async def serve_demo(session: Session, port: int | None, prepare: Preparing) -> None:
    """Until SIGTERM or Ctrl-C. A port that nobody asked for and somebody has gives way to a free one."""
    settings = reading_settings(session, port=port, console=True, access_log=False, log_format="text")
    from meterbook import serving  # noqa: PLC0415  the server is an extra

    keys: list[str] = []

    @asynccontextmanager
    async def opening() -> AsyncIterator[Book]:
        clock = DemoClock()
        async with open_demo(session, clock) as book:
            await prepare(book, clock)
            clock.run_from(max(cast.SERVED_AT, await find_latest(book)))
            keys.append(await _make_key(book))
            yield book

    def tell(serves: "Serving") -> None:
        door = _Door(serves.address, keys[-1], serves.customer_link(EXPLAINED, LINK_DAYS))
        if session.json:
            print(json_text(_door_data(door)), flush=True)
        else:
            _show_door(console(), door, session)

    await serving.serve(settings, opening, tell, is_trial=True)


async def _make_key(book: Book) -> str:
    """Another one at each start, and the one before ends: a key is told once, and whoever starts the demo again needs one."""
    for key in await book.keys():
        if key.name == KEY_NAME and key.revoked_at is None:
            async with book.act(by_whom(), "revoke_key", f"key {key.id}", {}):
                await book.revoke_key(key.id)
    async with book.act(by_whom(), "make_key", KEY_NAME, {"scopes": ["admin"]}):
        made = await book.make_key(KEY_NAME, scopes=["admin"], by=by_whom())
    return made.text


def _door_data(door: _Door) -> dict[str, object]:
    return {
        "synthetic": True,
        "address": door.address,
        "console": door.console,
        "key": door.key,
        "customer": door.customer,
        "record": door.recording,
        "read": door.reading,
    }


def _show_door(on: Console, door: _Door, session: Session) -> None:
    lines = (
        f"meterbook serves {door.address}",
        "",
        f"  console     {door.console}",
        f"  sign in by  {door.key}",
        "              an admin key, shown this once; the next start makes another",
        f"  a customer  {door.customer}",
        f"              what {EXPLAINED} sees, by a signed link",
        "",
        "Record an entry; again, and it is known and nothing is added:",
        "",
        f"  {door.recording}",
        "",
        "Read what it belongs to:",
        "",
        f"  {door.reading}",
        "",
        f"Made-up data, kept in {session.home / DEMO_FOLDER}. The whole story of its month: {program_name()} demo. Ctrl-C stops.",
    )
    for line in lines:
        on.print(line, soft_wrap=True)
