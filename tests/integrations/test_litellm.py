"""LiteLLM's callback, with the real LiteLLM; answers come from its own `mock_response`, without a network."""

import asyncio
import os
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meterbook import Book
from meterbook.client import AsyncClient
from meterbook.errors import InvalidUsage, KeyConflict, LedgerUnavailable
from meterbook.pricing import PriceBook, Tokens, UnknownPrice
from meterbook.sync import Book as SyncBook
from tests.http.serving import serving
from tests.integrations.callers import total

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import litellm

    from meterbook.integrations.litellm import UsageCallback, tokens_of

pytestmark = pytest.mark.filterwarnings("ignore")
ASKED: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "What is six times seven?"}],
    "mock_response": "forty-two",
    "user": "u",
}
Errors = list[tuple[Exception, Mapping[str, Any]]]


@pytest.fixture
def errors() -> Errors:
    return []


@pytest.fixture(autouse=True)
def no_callbacks() -> Iterator[None]:
    """LiteLLM's callbacks are one list a process."""
    litellm.callbacks.clear()
    yield
    litellm.callbacks.clear()
    litellm.logging_callback_manager._reset_all_callbacks()  # type: ignore[no-untyped-call]


@pytest.fixture
async def callback(book: Book, errors: Errors) -> AsyncIterator[UsageCallback]:
    made = UsageCallback(book, on_error=lambda error, said: errors.append((error, said)))
    litellm.callbacks.append(made)
    yield made
    await made.flush()


def price(response: Any) -> Decimal:
    tokens = tokens_of(response)
    assert tokens is not None
    return PriceBook().price("gpt-4o", tokens, datetime.now(UTC), provider="openai")


async def test_a_call_is_recorded_once_at_its_exact_price(book: Book, callback: UsageCallback) -> None:
    """Who used it, the model, the price by genai-prices to the last digit, the tokens beside it."""
    response = await litellm.acompletion(**ASKED)
    await callback.flush()
    (entry,) = (await book.entries("user:u")).entries
    assert (entry.actor, entry.source, entry.description) == ("u", "litellm", "gpt-4o")
    assert entry.amount == price(response) > 0


async def test_the_same_callback_again_is_replayed(book: Book, callback: UsageCallback, errors: Errors) -> None:
    """The key is LiteLLM's id of the call: however often it is told of, it is one entry; a call of its own is another."""
    for _ in range(3):
        await litellm.acompletion(**ASKED, litellm_call_id="call_7")
    await litellm.acompletion(**ASKED)
    await callback.flush()
    assert ((await book.usage("user:u")).count, errors) == (2, [])


async def test_a_callback_beside_an_older_one_is_told_too(book: Book, errors: Errors) -> None:
    """LiteLLM takes two of one class for one: a book that is opened anew would record nothing, and nobody would know."""
    litellm.callbacks.append(UsageCallback(Failing(book, 99), on_error=lambda *told: errors.append(told)))
    await litellm.acompletion(**{**ASKED, "user": None})
    callback = UsageCallback(book)
    litellm.callbacks.append(callback)
    await litellm.acompletion(**ASKED)
    await callback.flush()
    assert (await book.usage("user:u")).count == 1


async def test_an_answer_that_is_streamed_is_recorded_at_its_end(book: Book, callback: UsageCallback) -> None:
    """Once, when the stream has been read; nothing before."""
    stream = await litellm.acompletion(**ASKED, stream=True)
    chunks = [chunk async for chunk in stream]
    await callback.flush()
    assert len(chunks) > 1
    (entry,) = (await book.entries("user:u")).entries
    assert entry.amount > 0


async def test_a_call_that_fails_costs_nothing(book: Book, callback: UsageCallback, errors: Errors) -> None:
    """Nothing is recorded, and it is no error of the callback's."""
    with pytest.raises(litellm.exceptions.InternalServerError):
        await litellm.acompletion(**{**ASKED, "mock_response": Exception("down")}, num_retries=0)
    await callback.flush()
    assert ((await book.usage("user:u")).count, errors) == (0, [])


async def test_the_metadata_may_say_who_where_and_which(book: Book, callback: UsageCallback) -> None:
    """meterbook_actor wins over `user`; workspace, workflow, execution and event key go into the entry."""
    await book.put_workspace("w", payer="user:payer")
    said = {f"meterbook_{name}": value for name, value in
            {"actor": "ada", "workspace": "w", "workflow": "f", "execution": "e", "event_key": "run:7"}.items()}  # fmt: skip
    for _ in range(2):
        await litellm.acompletion(**ASKED, metadata=said)
    await callback.flush()
    (entry,) = (await book.entries("user:payer")).entries
    assert (entry.actor, entry.workspace, entry.workflow, entry.execution) == ("ada", "w", "f", "e")


async def test_behind_a_proxy_a_call_does_not_say_who_pays_or_what_it_is(book: Book, errors: Errors) -> None:
    """Its metadata and its id are the customer's to choose: another's workspace, and a key for ever the same, would be free."""
    await book.put_workspace("w", payer="user:payer")
    callback = UsageCallback(
        book, is_proxy=True, actor=lambda _: "u", on_error=lambda error, said: errors.append((error, said))
    )
    litellm.callbacks.append(callback)
    chosen = {"meterbook_actor": "ada", "meterbook_workspace": "w", "meterbook_event_key": "run:7"}
    for _ in range(2):
        await litellm.acompletion(**ASKED, metadata=chosen, litellm_call_id="call_7")
    await callback.flush()
    assert ((await book.usage("user:u")).count, errors) == (2, [])


async def test_behind_a_proxy_the_actor_is_named(book: Book) -> None:
    """By what the proxy knows, not by `user`."""
    with pytest.raises(InvalidUsage, match="actor"):
        UsageCallback(book, is_proxy=True)


async def test_a_model_that_only_litellm_prices_is_rounded_at_twelve_places(book: Book) -> None:
    """Its float is taken as the shortest text for it: 0.00022500000000000002 of LiteLLM is 0.000225 in the ledger."""
    callback = UsageCallback(book, own_prices=False)
    litellm.callbacks.append(callback)
    response = await litellm.acompletion(**ASKED)
    await callback.flush()
    (entry,) = (await book.entries("user:u")).entries
    shown = Decimal(repr(response._hidden_params["response_cost"]))
    assert entry.amount == round(shown, 12)
    assert abs(entry.amount - price(response)) < Decimal("1e-12")


async def test_a_price_of_the_applications_own_wins(book: Book, callback: UsageCallback) -> None:
    """Who tells LiteLLM what a token costs is charged that."""
    response = await litellm.acompletion(**ASKED, input_cost_per_token=0.5, output_cost_per_token=0.25)
    await callback.flush()
    tokens = tokens_of(response)
    assert tokens is not None
    (entry,) = (await book.entries("user:u")).entries
    assert entry.amount == tokens.input * Decimal("0.5") + tokens.output * Decimal("0.25")


async def test_another_tier_of_service_is_litellms_to_price(book: Book, callback: UsageCallback) -> None:
    """The price of a token depends on more than the model then."""
    plain = await litellm.acompletion(**{**ASKED, "model": "gpt-5"})
    await litellm.acompletion(**{**ASKED, "model": "gpt-5", "user": "priority"}, service_tier="priority")
    await callback.flush()
    dear, usual = (await book.usage("user:priority")).total, (await book.usage("user:u")).total
    assert plain.usage.prompt_tokens > 0
    assert dear > usual > 0


async def test_a_call_without_an_actor_is_told(
    callback: UsageCallback, errors: Errors, caplog: pytest.LogCaptureFixture
) -> None:
    """The application has its answer; the log and `on_error` have the call."""
    response = await litellm.acompletion(**{**ASKED, "user": None}, litellm_call_id="call_8")
    await callback.flush()
    assert response.choices[0].message.content == "forty-two"
    ((error, said),) = errors
    assert isinstance(error, InvalidUsage)
    assert said["event_key"] == "litellm:call_8"
    assert "usage was not recorded (actor: is not known" in caplog.text


async def test_a_model_without_a_price_is_told(callback: UsageCallback, errors: Errors) -> None:
    """No price is no zero."""
    asked = {**ASKED, "model": "openai/a-model-of-our-own"}
    await litellm.acompletion(**asked)
    await callback.flush()
    assert [type(error) for error, _ in errors] == [UnknownPrice]


async def test_a_conflict_is_told_and_breaks_no_call(callback: UsageCallback, errors: Errors) -> None:
    """The same id for another call."""
    await litellm.acompletion(**ASKED, litellm_call_id="call_9")
    answer = await litellm.acompletion(**{**ASKED, "model": "gpt-4o-mini"}, litellm_call_id="call_9")
    await callback.flush()
    assert answer.choices[0].message.content == "forty-two"
    assert [type(error) for error, _ in errors] == [KeyConflict]


class Failing:
    """A ledger that goes away, so many times."""

    def __init__(self, book: Book, times: int) -> None:
        self.book, self.times = book, times

    async def record(self, *said: Any, **named: Any) -> Any:
        self.times -= 1
        if self.times >= 0:
            raise LedgerUnavailable
        return await self.book.record(*said, **named)


@pytest.mark.parametrize(("times", "recorded"), [(1, 1), (9, 0)])
async def test_a_ledger_that_is_away_is_asked_again_and_then_told(
    book: Book, errors: Errors, monkeypatch: pytest.MonkeyPatch, times: int, recorded: int
) -> None:
    """What is given up comes with all arguments of `record`, so that it can be recorded later."""
    monkeypatch.setattr("meterbook.integrations.litellm.PAUSE_S", 0.01)
    callback = UsageCallback(Failing(book, times), on_error=lambda error, said: errors.append((error, said)))
    litellm.callbacks.append(callback)
    await litellm.acompletion(**ASKED)
    await callback.flush()
    assert (await book.usage("user:u")).count == recorded
    assert len(errors) == 1 - recorded
    for _, said in errors:
        await book.record(**said)
    assert (await book.usage("user:u")).count == 1


def eventually(look: Callable[[], bool]) -> None:
    """LiteLLM tells of synchronous calls from a thread of its own."""
    until = time.monotonic() + 10
    while not look():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_synchronous_calls_are_recorded_by_a_synchronous_ledger(sync_book: SyncBook) -> None:
    """Streamed or not."""
    litellm.callbacks.append(UsageCallback(sync_book))
    litellm.completion(**ASKED)
    assert len(list(litellm.completion(**ASKED, stream=True))) > 1
    eventually(lambda: sync_book.usage("user:u").count == 2)
    assert sync_book.usage("user:u").total > 0


async def test_asynchronous_calls_are_recorded_by_a_synchronous_ledger(sync_book: SyncBook) -> None:
    """From a thread, so that the loop does not wait."""
    callback = UsageCallback(sync_book)
    litellm.callbacks.append(callback)
    await litellm.acompletion(**ASKED)
    await callback.flush()
    assert sync_book.usage("user:u").count == 1


async def test_synchronous_calls_reach_an_asynchronous_ledger_through_its_loop(
    book: Book, callback: UsageCallback
) -> None:
    """A route that runs in a thread, beside a Book that lives in the loop; and one that blocks the loop itself."""
    with ThreadPoolExecutor(1) as threads:
        await asyncio.get_running_loop().run_in_executor(threads, lambda: litellm.completion(**ASKED))
    litellm.completion(**ASKED)
    async with asyncio.timeout(10):
        while (await book.usage("user:u")).count < 2:  # noqa: ASYNC110  LiteLLM's thread sets no event
            await asyncio.sleep(0.02)
    assert callback is not None


def test_an_answer_from_a_cache_costs_nothing(sync_book: SyncBook, errors: Errors) -> None:
    """The provider was not asked. Told as LiteLLM tells it: its own cache needs packages of its proxy, which are not here."""
    callback = UsageCallback(sync_book, on_error=lambda *told: errors.append(told))
    answer = litellm.ModelResponse(usage=litellm.Usage(prompt_tokens=100, completion_tokens=5))
    call = {"model": "gpt-4o", "custom_llm_provider": "openai", "call_type": "completion", "user": "u"}
    for cache_hit, count in ((True, 0), (False, 1)):
        told = {**call, "litellm_call_id": f"call_{count}", "cache_hit": cache_hit}
        callback.log_success_event(told, answer, datetime.now(UTC), datetime.now(UTC))
        assert sync_book.usage("user:u").count == count
    assert errors == []


def test_a_synchronous_call_without_a_loop_is_told(sync_book: SyncBook, errors: Errors) -> None:
    """An asynchronous ledger can't be reached where its loop does not run."""

    class Asynchronous:
        async def record(self, *_: Any, **__: Any) -> None:
            raise AssertionError

    litellm.callbacks.append(UsageCallback(Asynchronous(), on_error=lambda *told: errors.append(told)))
    litellm.completion(**ASKED)
    eventually(lambda: len(errors) == 1)
    assert "meterbook.sync" in str(errors[0][0])
    assert sync_book.usage("user:u").count == 0


def test_cached_tokens_are_counted_among_the_input() -> None:
    """As genai-prices wants them, for providers that count them apart too."""
    usage = litellm.Usage(
        prompt_tokens=100,
        completion_tokens=5,
        prompt_tokens_details={"cached_tokens": 60, "cache_creation_tokens": 30},
    )
    assert tokens_of(litellm.ModelResponse(usage=usage)) == Tokens(100, 5, 60, 30)
    assert tokens_of(object()) is None


@pytest.mark.parametrize("server", ["embedded18"], indirect=True)
async def test_a_call_is_recorded_by_a_client(database_url: str, tmp_path: Path) -> None:
    """With a client in the Book's place the entry is in the ledger of the server, in another process."""
    with serving(database_url, tmp_path) as served:
        async with AsyncClient(served.address, served.keys["record"]) as client:
            callback = UsageCallback(client)
            litellm.callbacks.append(callback)
            response = await litellm.acompletion(**ASKED)
            await callback.flush()
        assert total(database_url) == price(response)
