"""What an integration needs of a ledger. `meterbook.Book` has it, and so has a client of a server: the arguments are the same."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Any, Protocol

from meterbook.core.admission import Admission

Amount = str | Decimal | int


class Recorder(Protocol):
    async def record(
        self,
        actor: str,
        *,
        source: str,
        description: str,
        amount: Amount,
        event_key: str | None = None,
        category: str = "model",
        workspace: str | None = None,
        workflow: str | None = None,
        execution: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any: ...


class SyncRecorder(Protocol):
    def record(
        self,
        actor: str,
        *,
        source: str,
        description: str,
        amount: Amount,
        event_key: str | None = None,
        category: str = "model",
        workspace: str | None = None,
        workflow: str | None = None,
        execution: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any: ...


class Held(Protocol):
    ended: bool
    """Whether leaving its block leaves it as it is."""

    async def settle(
        self, *, amount: Amount, source: str, description: str, event_key: str | None = None, category: str = "model"
    ) -> Any: ...


class Ledger(Recorder, Protocol):
    async def check(self, actor: str, *, workspace: str | None = None) -> Admission: ...

    def hold(
        self, actor: str, *, amount: Amount, ttl_s: int = ..., workspace: str | None = None
    ) -> AbstractAsyncContextManager[Held]: ...
