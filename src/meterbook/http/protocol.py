"""HTTP/1.1 whose headers have to arrive in time, and whose answers go out in one piece.

uvicorn waits for headers for ever, which a few slow clients can use up, and writes an answer's head before its body.
"""

import asyncio
from typing import Any, ClassVar, Self

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

BYTES_PER_TURN = 65_536


class JoinedWrites:
    """A transport on which all that is written in one turn of the loop leaves together, so that an answer costs one system call, not two.

    More than `BYTES_PER_TURN` does not wait for the end of the turn, so that the transport can ask for a pause.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, piece: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(piece)
        self._size += len(piece)
        if self._size > BYTES_PER_TURN:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        pieces, self._waiting, self._size = self._waiting, [], 0
        if pieces and not self._transport.is_closing():  # cut meanwhile: nobody reads it
            self._transport.writelines(pieces)


class TimedProtocol(HttpToolsProtocol):
    """Cut when a request's headers are not there in time, counted from the connection or from the request's first byte."""

    header_timeout_s: ClassVar[int] = 10
    _cut: asyncio.TimerHandle | None = None

    @classmethod
    def within(cls, seconds: int) -> type[Self]:
        return type("TimedProtocol", (cls,), {"header_timeout_s": seconds})

    def connection_made(self, transport: Any) -> None:
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]  # all that is asked of it
        self._wait()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        self._arrived()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._arrived()
        self._cut = self.loop.call_later(self.header_timeout_s, self.transport.abort)

    def _arrived(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None
