"""The gate before FastAPI's routes, with the real FastAPI; streams and clients that leave over a real server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated, Any

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse

from meterbook import Book
from meterbook.errors import LedgerUnavailable
from meterbook.integrations.fastapi import AmountMissing, Charge, Gate, answer_problems

Calling = Callable[..., httpx.AsyncClient]


def who(x_user: Annotated[str, Header()]) -> str:
    return x_user


def gate(book: Any, **said: Any) -> Gate:
    return Gate(ledger=lambda _: book, actor=who, source="api", **{"description": "answer", "amount": "0.25", **said})


def application() -> FastAPI:
    app = FastAPI()
    answer_problems(app)
    return app


@pytest.fixture
async def calling() -> AsyncIterator[Calling]:
    """A caller of an application, as user u."""
    opened: list[httpx.AsyncClient] = []

    def call(app: FastAPI) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        opened.append(httpx.AsyncClient(transport=transport, base_url="http://app.test", headers={"x-user": "u"}))
        return opened[-1]

    yield call
    for client in opened:
        await client.aclose()


async def total(book: Book) -> Decimal | int:
    return (await book.usage("user:u")).total


async def held(book: Book) -> Decimal | int:
    return (await book.usage("user:u")).held


def failing() -> dict[str, str]:
    raise HTTPException(418, "no tea")


async def test_a_route_that_succeeds_is_recorded_before_it_answers(book: Book, calling: Calling) -> None:
    """The gate's amount, under the gate's source and description, for whom the request is."""
    app = application()

    @app.get("/answer", dependencies=[gate(book).answered])
    async def answer() -> dict[str, str]:
        assert await total(book) == 0
        return {"answer": "42"}

    assert (await calling(app).get("/answer")).json() == {"answer": "42"}
    (entry,) = (await book.entries("user:u")).entries
    assert (entry.actor, entry.source, entry.description, entry.amount) == ("u", "api", "answer", Decimal("0.25"))


async def test_a_route_says_what_it_cost(book: Book, calling: Calling) -> None:
    """Amount and description are the route's to say; each request is an intent of its own."""
    app = application()

    @app.get("/answer")
    async def answer(charge: Annotated[Charge, gate(book, amount=None).answered]) -> str:
        charge.amount, charge.description = Decimal("0.001"), "gpt-4o"
        return charge.actor

    client = calling(app)
    assert [(await client.get("/answer")).json() for _ in range(2)] == ["u", "u"]
    assert await total(book) == Decimal("0.002")


async def test_a_key_of_the_routes_makes_a_repeat_free(book: Book, calling: Calling) -> None:
    """The same work asked for again is replayed; other work under its key is a conflict, told as 409."""
    app = application()

    @app.get("/runs/{run}")
    async def answer(run: str, amount: str, charge: Annotated[Charge, gate(book).answered]) -> str:
        charge.event_key, charge.amount = f"run:{run}", amount
        return run

    client = calling(app)
    assert [(await client.get("/runs/7?amount=0.10")).status_code for _ in range(3)] == [200, 200, 200]
    conflict = await client.get("/runs/7?amount=0.20")
    assert (conflict.status_code, conflict.json()["code"]) == (409, "key_conflict")
    assert await total(book) == Decimal("0.10")


async def test_a_request_id_of_an_own_proxy_names_the_charge(book: Book, calling: Calling) -> None:
    """A request that the proxy sends again is charged once; on another route its id means another charge."""
    app = application()
    paid = gate(book, request_id=lambda request: request.headers["x-request-id"])

    @app.get("/one", dependencies=[paid.answered])
    @app.get("/two", dependencies=[paid.answered])
    async def answer() -> None:
        return None

    client = calling(app)
    for path in ("/one", "/one", "/two"):
        assert (await client.get(path, headers={"x-request-id": "r1"})).status_code == 200
    assert await total(book) == Decimal("0.50")


async def test_who_has_nothing_left_is_not_let_in(book: Book, calling: Calling) -> None:
    """402 with the library's problem document, before the route has done anything."""
    app, began = application(), []

    @app.get("/answer", dependencies=[gate(book, amount="5.00").answered])
    async def answer() -> None:
        began.append(1)

    client = calling(app)
    assert (await client.get("/answer")).status_code == 200
    denied = await client.get("/answer")
    assert (denied.status_code, denied.headers["content-type"]) == (402, "application/problem+json")
    said = denied.json()
    assert (said["type"], said["status"], said["code"]) == ("urn:meterbook:problem:denied", 402, "denied")
    assert (said["admission"]["code"], said["admission"]["used"], said["retryable"]) == ("limit_reached", "5.00", False)
    assert len(began) == 1


async def test_a_denial_has_its_status_without_the_handler_too(book: Book, calling: Calling) -> None:
    """`answer_problems` makes the document; the status and the code don't depend on it."""
    app = FastAPI()
    await book.block("user:u", reason="dispute")

    @app.get("/answer", dependencies=[gate(book).answered])
    async def answer() -> None: ...

    denied = await calling(app).get("/answer")
    assert (denied.status_code, denied.json()["detail"]["admission"]["code"]) == (402, "dispute")


async def test_what_could_not_be_known_is_asked_to_come_again(book: Book, calling: Calling) -> None:
    """A check that could not look is 503 with Retry-After, never a 200 and never a 402."""
    app = application()

    @app.get("/answer", dependencies=[gate(book).answered])
    async def answer() -> None: ...

    await book._pool.close()
    response = await calling(app).get("/answer")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["retryable"] is True


async def test_a_route_that_fails_is_not_recorded(book: Book, calling: Calling) -> None:
    """Neither what it raises for the client nor a fault of its own costs anything; a hold is released."""
    app = application()

    @app.get("/checked", dependencies=[gate(book).answered])
    async def checked() -> dict[str, str]:
        return failing()

    @app.get("/held", dependencies=[gate(book, hold="1.00").answered])
    async def with_hold() -> dict[str, str]:
        assert await held(book) == 1
        return failing()

    @app.get("/fault", dependencies=[gate(book, hold="1.00").answered])
    async def fault() -> None:
        raise ZeroDivisionError

    client = calling(app)
    assert [(await client.get(path)).status_code for path in ("/checked", "/held", "/fault")] == [418, 418, 500]
    assert (await total(book), await held(book)) == (0, 0)


async def test_a_hold_is_settled_at_the_real_cost(book: Book, calling: Calling) -> None:
    """Set aside before, settled after; nothing stays held."""
    app = application()

    @app.get("/answer")
    async def answer(charge: Annotated[Charge, gate(book, hold="1.00", amount=None).answered]) -> None:
        assert await held(book) == 1
        charge.amount = "0.31"

    assert (await calling(app).get("/answer")).status_code == 200
    assert (await total(book), await held(book)) == (Decimal("0.31"), 0)


async def test_a_hold_that_does_not_fit_is_denied(book: Book, calling: Calling) -> None:
    """Many at once get no more than the limit holds: 5.00 for the free plan, 2.00 each."""
    app = application()

    @app.get("/answer", dependencies=[gate(book, hold="2.00", amount="2.00").answered])
    async def answer() -> None:
        await asyncio.sleep(0.2)

    client = calling(app)
    answers = await asyncio.gather(*(client.get("/answer") for _ in range(6)))
    assert sorted(response.status_code for response in answers) == [200, 200, 402, 402, 402, 402]
    assert await total(book) == Decimal("4.00")


async def test_a_route_without_an_amount_is_a_fault(book: Book) -> None:
    """Nobody gets work for nothing by an oversight unseen."""
    app = application()

    @app.get("/answer", dependencies=[gate(book, amount=None, hold="1.00").answered])
    async def answer() -> None: ...

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app.test", headers={"x-user": "u"}) as client:
        with pytest.raises(AmountMissing):
            await client.get("/answer")
    assert (await total(book), await held(book)) == (0, 0)


class Failing:
    """A ledger that goes away between the check and the record, so many times."""

    def __init__(self, book: Book, times: int) -> None:
        self.book, self.times = book, times
        self.check, self.hold = book.check, book.hold

    async def record(self, *said: Any, **named: Any) -> Any:
        self.times -= 1
        if self.times >= 0:
            raise LedgerUnavailable
        return await self.book.record(*said, **named)


async def test_a_record_that_fails_is_tried_again_and_then_told(
    book: Book, calling: Calling, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice unavailable: recorded all the same, once. Longer: the answer is a refusal, and the log has what to record."""
    app = application()

    @app.get("/twice", dependencies=[gate(Failing(book, 2)).answered])
    @app.get("/longer", dependencies=[gate(Failing(book, 9)).answered])
    async def answer() -> None: ...

    client = calling(app)
    assert (await client.get("/twice")).status_code == 200
    assert await total(book) == Decimal("0.25")
    assert (await client.get("/longer")).status_code == 503
    assert await total(book) == Decimal("0.25")
    assert "usage was not recorded (ledger_unavailable)" in caplog.text
    assert "event_key='api GET /longer" in caplog.text


async def test_a_workspace_is_a_dependency_too(book: Book, calling: Calling) -> None:
    """Its payer pays."""
    app = application()
    await book.put_workspace("w", payer="user:payer")

    def where() -> str:
        return "w"

    @app.get("/answer", dependencies=[gate(book, workspace=where).answered])
    @app.get("/held", dependencies=[gate(book, workspace=where, hold="1.00").answered])
    async def answer() -> None: ...

    client = calling(app)
    assert [(await client.get(path)).status_code for path in ("/answer", "/held")] == [200, 200]
    assert (await book.usage("user:payer")).total == Decimal("0.50")


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """On a real socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running
        listener.close()


async def assert_eventually(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await look():  # noqa: ASYNC110  the database sets no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("hold", [None, "1.00"])
async def test_a_stream_is_recorded_when_it_has_ended(book: Book, hold: str | None) -> None:
    """What the route said last is what it cost."""
    app = application()

    @app.get("/stream")
    async def stream(charge: Annotated[Charge, gate(book, amount=None, hold=hold).streamed]) -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            for count in range(1, 4):
                charge.amount = Decimal("0.10") * count
                yield "word "

        return StreamingResponse(words())

    async with served(app) as address, httpx.AsyncClient(headers={"x-user": "u"}) as client:
        assert (await client.get(f"{address}/stream")).text == "word word word "

        async def is_recorded() -> bool:
            return (await total(book), await held(book)) == (Decimal("0.30"), 0)

        await assert_eventually(is_recorded)


@pytest.mark.parametrize("hold", [None, "1.00"])
async def test_a_client_that_leaves_pays_for_what_was_done(book: Book, hold: str | None) -> None:
    """The stream is cut off by the client: what the route had said by then is recorded, and nothing stays held."""
    app = application()

    @app.get("/stream")
    async def stream(charge: Annotated[Charge, gate(book, amount=None, hold=hold).streamed]) -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            charge.amount = Decimal("0.10")
            yield "word "
            await asyncio.sleep(60)
            charge.amount = Decimal("9.00")

        return StreamingResponse(words())

    async with served(app) as address, httpx.AsyncClient(headers={"x-user": "u"}) as client:
        async with client.stream("GET", f"{address}/stream") as response:
            async for _ in response.aiter_text():
                break

        async def is_recorded() -> bool:
            return (await total(book), await held(book)) == (Decimal("0.10"), 0)

        await assert_eventually(is_recorded)


async def test_a_client_that_leaves_an_ordinary_route_pays_too(book: Book) -> None:
    """The route's work goes on to its end, and is recorded."""
    app, began = application(), asyncio.Event()

    @app.get("/answer", dependencies=[gate(book).answered])
    async def answer() -> None:
        began.set()
        await asyncio.sleep(0.3)

    async with served(app) as address:
        async with httpx.AsyncClient(headers={"x-user": "u"}) as client:
            asking = asyncio.create_task(client.get(f"{address}/answer"))
            await began.wait()
            asking.cancel()

        async def is_recorded() -> bool:
            return await total(book) == Decimal("0.25")

        await assert_eventually(is_recorded)


async def test_a_gate_that_a_route_and_its_router_name_charges_once(book: Book, calling: Calling) -> None:
    """It is one gate: what the route says of its cost is what is recorded, and nothing beside it."""
    app, paid = application(), gate(book)

    @app.get("/answer", dependencies=[paid.answered])
    async def answer(charge: Annotated[Charge, paid.answered]) -> None:
        charge.amount = "0.10"

    assert (await calling(app).get("/answer")).status_code == 200
    assert ((await book.usage("user:u")).count, await total(book)) == (1, Decimal("0.10"))


async def test_an_amount_that_is_none_is_the_routes_fault(
    book: Book, calling: Calling, caplog: pytest.LogCaptureFixture
) -> None:
    """A float is refused; the caller said nothing wrong and is not told so, and what was done is in the log."""
    app = application()

    @app.get("/answer")
    async def answer(charge: Annotated[Charge, gate(book).answered]) -> None:
        charge.amount = 0.1  # type: ignore[assignment]

    response = await calling(app).get("/answer")
    assert (response.status_code, response.json()["status"], response.json()["code"]) == (500, 500, "invalid_usage")
    assert "amount=0.1" in caplog.text
    assert await total(book) == 0


async def test_a_request_that_is_cancelled_is_recorded(book: Book) -> None:
    """A middleware or a server that ends cancels the route itself: its cost is written all the same, once."""
    app, began = application(), asyncio.Event()

    @app.get("/answer", dependencies=[gate(book).answered])
    async def answer() -> None:
        began.set()
        await asyncio.sleep(60)

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://app.test", headers={"x-user": "u"}
    ) as client:
        asking = asyncio.create_task(client.get("/answer"))
        await began.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert (await book.usage("user:u")).count == 1


async def test_the_gates_actor_may_be_any_dependency(book: Book, calling: Calling) -> None:
    """A dependency with dependencies of its own, and one that refuses, work as FastAPI's do."""
    app = application()

    def token(authorization: Annotated[str | None, Header()] = None) -> str:
        if authorization is None:
            raise HTTPException(401, "who are you?")
        return authorization

    def user(said: Annotated[str, Depends(token)]) -> str:
        return said.removeprefix("Bearer ")

    paid = Gate(ledger=lambda _: book, actor=user, source="api", description="answer", amount="0.25")

    @app.get("/answer", dependencies=[paid.answered])
    async def answer() -> None: ...

    client = calling(app)
    assert (await client.get("/answer")).status_code == 401
    assert (await client.get("/answer", headers={"authorization": "Bearer u"})).status_code == 200
    assert await total(book) == Decimal("0.25")
