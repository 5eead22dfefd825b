"""Administrative acts over HTTP are noted with whose key asked for them, and by which request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from litestar import Request
from msgspec import Struct

from meterbook.http.door import door_of

BY_LENGTH_MAX = 255


@asynccontextmanager
async def noted(
    request: Request[Any, Any, Any], act: str, subject: str, said: Struct | dict[str, Any]
) -> AsyncIterator[str]:
    """Gives who acts."""
    key, request_id = request.scope["state"]["key"], request.scope["state"]["request_id"]
    by = f"key {key.prefix} ({key.name})"[:BY_LENGTH_MAX]
    async with door_of(request).book.act(by, act, subject, msgspec.to_builtins(said), request_id):
        yield by
