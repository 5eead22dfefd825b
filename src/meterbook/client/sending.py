"""What every part of the client shares: the line, what waits, and how a call is made now, or later if there is a spool."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from logging import getLogger
from pathlib import Path
from typing import Any, Literal, TypeVar

from meterbook.client.calls import Call
from meterbook.client.line import Line
from meterbook.client.queues import Memory
from meterbook.client.sender import Sender
from meterbook.client.spool import Spool
from meterbook.client.waiting_asyncio import INTERRUPTED, in_thread, uninterrupted
from meterbook.core.arguments import check_moment
from meterbook.core.entries import check_text
from meterbook.errors import ClientClosed, MeterbookError, Unavailable, Unreachable

Answer = TypeVar("Answer")
WhenUnreachable = Literal["deny", "allow"]
TEXT_LENGTH_MAX = 4096
"""Of what is asked for: the server knows the bound of each."""
LOG = getLogger("meterbook.client")


@dataclass(frozen=True, slots=True)
class Settings:
    """As the client has them. Durations in seconds."""

    spool: Path | None
    timeout_s: float
    connect_timeout_s: float
    deadline_s: float
    check_deadline_s: float
    close_s: float
    when_unreachable: WhenUnreachable
    batch_entries_max: int
    batch_wait_s: float
    waiting_entries_max: int
    waiting_bytes_max: int


@dataclass(slots=True)
class Opened:
    """What an open client works with, in the process that opened it."""

    line: Line
    queue: Spool | Memory
    sender: Sender
    process: int


class Sending:
    """The base of the client's calls."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: Opened | None = None

    def _open(self) -> Opened:
        """Raises `ClientClosed`, and what ended the sender's work before its time."""
        opened = self._mine()
        opened.sender.raise_failure()
        return opened

    def _mine(self) -> Opened:
        """Of this process: a fork shares neither connections nor folder. Raises `ClientClosed`."""
        if self._opened is None or self._opened.process != os.getpid():
            raise ClientClosed
        return self._opened

    @property
    def _has_spool(self) -> bool:
        return self._settings.spool is not None

    async def _now_or_later(self, call: Call, read: Callable[[Any], Answer]) -> Answer | None:
        """None: it is in the spool. Without one the server's absence is raised, with the keys for another try."""
        opened = self._open()
        if self._has_spool and opened.line.is_gone and len(opened.queue):
            await self._later(call)
            return None
        try:
            return await opened.line.ask("POST", call.path, call.body, read, self._settings.deadline_s)
        except Unavailable as error:
            if not self._has_spool:
                if isinstance(error, Unreachable):
                    error.event_keys = tuple(key for key in call.event_keys if key is not None)
                raise
            await self._later(call)
            return None
        except INTERRUPTED:
            if self._has_spool:
                await self._later_though_interrupted(call)
            raise

    async def _later(self, call: Call) -> None:
        """Handed to the sender: on disk, or in memory without a spool. Raises `SpoolFull`, `SpoolFailed`, `Overloaded`."""
        await uninterrupted(self._hand_over, self._open(), call)

    async def _hand_over(self, opened: Opened, call: Call) -> None:
        await in_thread(opened.queue.append, [call.stamped()])
        opened.sender.told()

    async def _later_though_interrupted(self, call: Call) -> None:
        """Nobody waits for it any more, and what it stands for was used all the same."""
        try:
            await self._later(call)
        except MeterbookError as error:
            LOG.error("interrupted, and not kept (%s): %s %s", error.code, call.path, call.body)  # noqa: TRY400  the interruption is raised

    async def _read(self, path: str, wanted: dict[str, Any], read: Callable[[Any], Answer]) -> Answer:
        said = {name: _text(name, value) for name, value in wanted.items() if value is not None}
        return await self._open().line.ask("GET", path, said, read, self._settings.deadline_s)


def now() -> datetime:
    return datetime.now(UTC)


def _text(name: str, value: object) -> object:
    """Raises `InvalidUsage`."""
    match value:
        case datetime():
            return check_moment(name, value).astimezone(UTC).isoformat()
        case bool():
            return str(value).lower()
        case str():
            return check_text(name, value, TEXT_LENGTH_MAX)
    return value
