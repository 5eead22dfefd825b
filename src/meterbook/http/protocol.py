"""HTTP/1.1 whose headers have to arrive in time: uvicorn waits for them for ever, which a few slow clients can use up."""

import asyncio
from typing import Any, ClassVar, Self

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class TimedProtocol(HttpToolsProtocol):
    """Cut when a request's headers are not there in time, counted from the connection or from the request's first byte."""

    header_timeout_s: ClassVar[int] = 10
    _cut: asyncio.TimerHandle | None = None

    @classmethod
    def within(cls, seconds: int) -> type[Self]:
        return type("TimedProtocol", (cls,), {"header_timeout_s": seconds})

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
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
