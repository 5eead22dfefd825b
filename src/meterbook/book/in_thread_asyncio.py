"""A blocking call beside the event loop; the twin just makes it."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


async def in_thread(call: Callable[Asked, Answer], *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
    return await asyncio.to_thread(call, *args, **kwargs)
