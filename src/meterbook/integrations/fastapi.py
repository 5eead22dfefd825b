"""A gate before a route of FastAPI: asks whether this work may begin, and records what it cost once it is done.

Needs FastAPI 0.121.1 or newer. See docs/guides/in-your-application.md.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from anyio import CancelScope
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect, Request

from meterbook.errors import Denied, InvalidRequest, MeterbookError
from meterbook.integrations.ledgers import Amount, Ledger, insist
from meterbook.problems import PROBLEM_JSON, RETRY_AFTER_S, problem_with, status_of

PAUSE_S = 0.2
"""Before the second attempt to record."""
ROUTE_AT_FAULT = 500
"""What the route said it cost is no usage: nothing that its caller can mend."""
GONE = (asyncio.CancelledError, ClientDisconnect)
"""Nobody waits for the answer any more; what was done was done all the same."""
log = logging.getLogger("meterbook.fastapi")
_under_way: set[asyncio.Task[None]] = set()
Answer = TypeVar("Answer")


class Refused(HTTPException):
    """An error of the ledger's as an answer; `answer_problems` makes a problem document of it."""

    def __init__(self, error: MeterbookError, request_id: str, status: int | None = None) -> None:
        headers = {"Retry-After": str(RETRY_AFTER_S)} if error.retryable else None
        status = status or status_of(error)
        super().__init__(status, problem_with(status, error, request_id), headers)


class AmountMissing(RuntimeError):
    """The route ended without saying what it cost: set `charge.amount`, or give the gate an amount."""


@dataclass(slots=True)
class Charge:
    """What the request costs. The route may say more exactly what it did, and has to set `amount` where the gate has none.

    `event_key` names this intent to charge, for ever: replace it by the work's own name if the same work may be asked for again.
    """

    actor: str
    workspace: str | None
    source: str
    description: str
    amount: Amount | None
    event_key: str
    category: str = "model"
    request_id: str = ""

    def said(self) -> dict[str, Any]:
        """As `record` and `settle` take it. Raises `AmountMissing`."""
        if self.amount is None:
            raise AmountMissing(AmountMissing.__doc__)
        named = ("source", "description", "amount", "event_key", "category")
        return {name: getattr(self, name) for name in named}


def new_request_id(_: Request) -> str:
    """Of our own making. One that the customer chooses would let him repeat work at the price of one."""
    return uuid4().hex


def no_workspace() -> None:
    """The actor's own payer pays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """`Depends` on `answered`, or on `streamed` where the route's answer is a stream; both give the request's `Charge`.

    `ledger` gives the Book, or a client, of a request; `actor` and `workspace` are dependencies of FastAPI that give who acts and where.
    Without `hold` the gate checks, which reserves nothing; with one it sets so much aside, settles it at what the work cost, and releases
    it when the route raises. `request_id` names a request for the event key: only one that nobody outside can repeat is safe.
    """

    ledger: Callable[[Request], Ledger]
    actor: Callable[..., Any]
    source: str
    description: str
    amount: Amount | None = None
    hold: Amount | None = None
    hold_ttl_s: int = 600
    workspace: Callable[..., Any] = no_workspace
    category: str = "model"
    request_id: Callable[[Request], str] = new_request_id
    _through: Callable[..., AsyncIterator[Charge]] = field(init=False, repr=False, compare=False)
    """One for each gate: FastAPI solves it once a request, however often a route and its router name it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_through", self._dependency())

    @property
    def answered(self) -> Any:
        """The cost is recorded before the answer is sent: if it can't be, the answer is a refusal."""
        return Depends(self._through, scope="function")

    @property
    def streamed(self) -> Any:
        """The cost is recorded when the stream has ended, or was cut off by the client: then as far as the route has said it."""
        return Depends(self._through, scope="request")

    def _dependency(self) -> Callable[..., AsyncIterator[Charge]]:
        async def gate(
            request: Request,
            actor: Any = Depends(self.actor),  # noqa: B008  the way of FastAPI
            workspace: Any = Depends(self.workspace),  # noqa: B008
        ) -> AsyncIterator[Charge]:
            charge = self._charge(request, actor, workspace)
            through = self._checked if self.hold is None else self._held
            async with through(self.ledger(request), charge):
                yield charge

        return gate

    def _charge(self, request: Request, actor: str, workspace: str | None) -> Charge:
        request_id = self.request_id(request)
        path = getattr(request.scope.get("route"), "path", "")
        return Charge(
            actor,
            workspace,
            self.source,
            self.description,
            self.amount,
            f"{self.source} {request.method} {path} {request_id}",
            self.category,
            request_id,
        )

    @asynccontextmanager
    async def _checked(self, ledger: Ledger, charge: Charge) -> AsyncIterator[None]:
        admission = await _answer(charge, ledger.check(charge.actor, workspace=charge.workspace))
        if not admission.allowed:
            raise Refused(Denied(admission), charge.request_id)
        async with _recorded(charge, lambda: ledger.record(charge.actor, workspace=charge.workspace, **charge.said())):
            yield

    @asynccontextmanager
    async def _held(self, ledger: Ledger, charge: Charge) -> AsyncIterator[None]:
        """Leaving with nothing settled releases: so after an error of the route. What can't be settled now is left to run out."""
        assert self.hold is not None  # noqa: S101  looked at before
        holding = ledger.hold(charge.actor, amount=self.hold, ttl_s=self.hold_ttl_s, workspace=charge.workspace)
        async with AsyncExitStack() as stack:
            held = await _answer(charge, stack.enter_async_context(holding))

            async def settle() -> None:
                try:
                    await held.settle(**charge.said())
                except MeterbookError:
                    held.ended = True
                    raise

            async with _recorded(charge, settle):
                yield


async def _answer(charge: Charge, asked: Awaitable[Answer]) -> Answer:
    try:
        return await asked
    except MeterbookError as error:
        raise Refused(error, charge.request_id) from error


@asynccontextmanager
async def _recorded(charge: Charge, record: Callable[[], Awaitable[Any]]) -> AsyncIterator[None]:
    """After success, and when the client has gone; after an error of the route nothing is recorded."""
    try:
        yield
    except GONE:
        if charge.amount is None:
            log.warning("%s was cut off before it said what it cost; nothing was recorded", charge.event_key)
        else:
            await _uninterrupted(_persist(charge, record))
        raise
    await _uninterrupted(_persist(charge, record))


async def _persist(charge: Charge, record: Callable[[], Awaitable[Any]]) -> None:
    """What is given up is in the log with all that is needed to record it later."""
    try:
        await insist(record, PAUSE_S)
    except MeterbookError as error:
        log.error("usage was not recorded (%s): %r", error.code, charge)  # noqa: TRY400  the error is raised
        status = ROUTE_AT_FAULT if isinstance(error, InvalidRequest) else None
        raise Refused(error, charge.request_id, status) from error


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """In a task of its own, which goes on though this request is cancelled, by a client that left or a server that ends."""
    task = asyncio.create_task(work)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    with CancelScope(shield=True):
        await asyncio.shield(task)


def answer_problems(app: FastAPI) -> None:
    """Refusals of a gate, and errors of the ledger that a route lets through, become problem documents (RFC 9457)."""
    app.add_exception_handler(Refused, _answer_refused)
    app.add_exception_handler(MeterbookError, _answer_error)


async def _answer_refused(_: Request, refused: Exception) -> JSONResponse:
    assert isinstance(refused, Refused)  # noqa: S101  registered for it alone
    return JSONResponse(refused.detail, refused.status_code, refused.headers, media_type=PROBLEM_JSON)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MeterbookError)  # noqa: S101  registered for it alone
    return await _answer_refused(request, Refused(error, ""))
