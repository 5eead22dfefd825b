"""A callback of LiteLLM that records what each successful call cost. See docs/guides/in-your-application.md.

A price of meterbook's own (`meterbook.pricing`) is exact. LiteLLM's is a binary float: it is taken as the shortest text that stands for it,
which is what a person reads, and rounded half to even at 12 decimals, so it is off by what LiteLLM's own arithmetic lost, and no more.
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.litellm_logging import use_custom_pricing_for_model
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

from meterbook.errors import InvalidUsage, MeterbookError, Problem
from meterbook.integrations.ledgers import ATTEMPTS_MAX, Recorder, SyncRecorder, insist
from meterbook.pricing import PriceBook, Tokens, UnknownPrice, ledger_amount

PAUSE_S = 0.5
"""Before the second attempt to record. LiteLLM gives a callback about 20 s."""
ANSWER_S = 15
PROVIDERS = {
    "anthropic": "anthropic",
    "deepseek": "deepseek",
    "gemini": "google",
    "groq": "groq",
    "mistral": "mistral",
    "openai": "openai",
    "xai": "x-ai",
}
"""LiteLLM's name → genai-prices'. Where a name is the customer's own (Azure) or a call is billed otherwise, LiteLLM knows more."""
BY_TOKENS = frozenset({"completion", "acompletion", "text_completion", "atext_completion", "embedding", "aembedding"})
PRICED_OTHERWISE = ("service_tier", "speed", "inference_geo", "web_search_options", "modalities", "audio")
"""Parameters that change the price of a token, or add what is no token."""
OTHER_TOKENS = ("audio_tokens", "image_tokens", "video_tokens", "web_search_requests", "google_maps_grounding_requests")

TELLING = ("_client_async_logging_helper", "Logging.dispatch_success_handlers")
"""Tasks of LiteLLM's that hand a call that has ended to its callbacks, or to the queue that does."""

Call = Mapping[str, Any]
OnError = Callable[[Exception, Mapping[str, Any]], None]
log = logging.getLogger("meterbook.litellm")


def metadata_of(call: Call) -> Mapping[str, Any]:
    """What the caller said as `metadata`."""
    said = call.get("litellm_params") or {}
    return {**(said.get("litellm_metadata") or {}), **(said.get("metadata") or {})}


def actor_of(call: Call) -> str | None:
    """`meterbook_actor` of the metadata, else `user`."""
    return metadata_of(call).get("meterbook_actor") or call.get("user")


class UsageCallback(CustomLogger):
    """`litellm.callbacks.append(UsageCallback(book))`. Takes a Book or a client, asynchronous or synchronous; serves both kinds of calls.

    The event key is LiteLLM's id of the call, so that a callback that comes twice is replayed. `actor` gives who pays for a call;
    `own_prices=False` leaves every price to LiteLLM. `is_proxy`: what a call says of itself is a customer's to choose, and nobody's word:
    no `meterbook_…` of its metadata counts, its id alone is no key, and `actor` has to be given. A call is never broken: what can't be
    recorded is logged, and given to `on_error` with the arguments of `record`. For asynchronous ledgers, make it where the event loop runs.
    """

    def __init__(
        self,
        ledger: Recorder | SyncRecorder,
        *,
        source: str = "litellm",
        actor: Callable[[Call], str | None] = actor_of,
        prices: PriceBook | None = None,
        own_prices: bool = True,
        is_proxy: bool = False,
        on_error: OnError | None = None,
    ) -> None:
        super().__init__()
        if is_proxy and actor is actor_of:
            what = "behind a proxy a call's `user` is the customer's to choose: say whose key it was"
            raise InvalidUsage([Problem(None, "actor", "missing", what)])
        self.ident = uuid4().hex
        """LiteLLM drops a callback whose class and public texts are those of one it has."""
        self._ledger: Any = ledger
        self._is_async = inspect.iscoroutinefunction(ledger.record)
        self._loop = _running_loop() if self._is_async else None
        self._source = source
        self._actor = actor
        self._is_proxy = is_proxy
        self._prices = (prices or PriceBook()) if own_prices else None
        self._on_error = on_error
        self._under_way: set[asyncio.Task[None]] = set()

    async def async_log_success_event(
        self, kwargs: Call, response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        del end_time
        if self._is_async:
            await self._record(kwargs, response_obj, start_time)
        else:
            await asyncio.to_thread(self._record_synchronously, kwargs, response_obj, start_time)

    def log_success_event(self, kwargs: Call, response_obj: Any, start_time: datetime, end_time: datetime) -> None:
        del end_time
        if not self._is_async:
            self._record_synchronously(kwargs, response_obj, start_time)
        elif self._loop is None or not self._loop.is_running():
            advice = "a synchronous call needs a ledger of meterbook.sync, or a callback made where the event loop runs"
            self._tell(RuntimeError(advice), self._named(kwargs, start_time))
        elif _running_loop() is self._loop:
            task = self._loop.create_task(self._record(kwargs, response_obj, start_time))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        else:
            recording = self._record(kwargs, response_obj, start_time)
            asyncio.run_coroutine_threadsafe(recording, self._loop).result(ANSWER_S)

    async def flush(self) -> None:
        """Returns when all asynchronous calls that have ended are recorded, or told to `on_error`: before the ledger is closed."""
        while telling := [task for task in asyncio.all_tasks() if _is_telling(task)]:
            await asyncio.wait(telling)
        await GLOBAL_LOGGING_WORKER.flush()
        if self._under_way:
            await asyncio.wait(self._under_way)

    # -------------------------------------------------------------------------------------------------------------- private

    async def _record(self, call: Call, response: Any, began: datetime) -> None:
        said: dict[str, Any] = self._named(call, began)
        try:
            said |= self._said(call, response, began)
            await insist(partial(self._ledger.record, **said), PAUSE_S)
        except Exception as error:  # noqa: BLE001  the call has its answer already
            self._tell(error, said)

    def _record_synchronously(self, call: Call, response: Any, began: datetime) -> None:
        said: dict[str, Any] = self._named(call, began)
        try:
            said |= self._said(call, response, began)
            for attempt in range(1, ATTEMPTS_MAX + 1):
                try:
                    self._ledger.record(**said)
                    return
                except MeterbookError as error:
                    if not error.retryable or attempt == ATTEMPTS_MAX:
                        raise
                time.sleep(PAUSE_S * attempt)
        except Exception as error:  # noqa: BLE001  the call has its answer already
            self._tell(error, said)

    def _said(self, call: Call, response: Any, began: datetime) -> dict[str, Any]:
        """The arguments of `record`. Raises `InvalidUsage`, `UnknownPrice`."""
        actor = self._actor(call)
        if not actor:
            what = "is not known: pass user=…, or metadata={'meterbook_actor': …}"
            raise InvalidUsage([Problem(None, "actor", "missing", what)])
        amount, priced_by = self._price(call, response, began)
        tokens = tokens_of(response)
        facts = {"provider": call.get("custom_llm_provider"), "priced_by": priced_by}
        if tokens is not None:
            facts |= tokens._asdict()
        place = self._place(call)
        named = {name: place.get(f"meterbook_{name}") for name in ("workspace", "workflow", "execution")}
        return {
            "actor": actor,
            "source": self._source,
            "amount": amount,
            "metadata": facts,
            **{name: value for name, value in named.items() if value is not None},
        }

    def _place(self, call: Call) -> Mapping[str, Any]:
        return {} if self._is_proxy else metadata_of(call)

    def _named(self, call: Call, began: datetime) -> dict[str, Any]:
        """What is known of every call. A proxy takes the id from a header: when it began can't be repeated."""
        key = f"litellm:{call.get('litellm_call_id')}"
        if self._is_proxy:
            key = f"{key}:{began.isoformat()}"
        return {"event_key": self._place(call).get("meterbook_event_key") or key, "description": str(call.get("model"))}

    def _price(self, call: Call, response: Any, began: datetime) -> tuple[Decimal, str]:
        if call.get("cache_hit") is True:
            return Decimal(0), "cache"
        if self._prices is not None and _is_by_text_tokens(call, response):
            tokens = tokens_of(response)
            provider = PROVIDERS.get(str(call.get("custom_llm_provider")))
            if tokens is not None and provider is not None:
                try:
                    at = began.astimezone(UTC)
                    return self._prices.price(str(call["model"]), tokens, at, provider=provider), "genai-prices"
                except UnknownPrice:
                    pass  # LiteLLM may know it
        cost = call.get("response_cost")
        if cost is None:
            raise UnknownPrice(f"neither genai-prices nor LiteLLM knows a price of {call.get('model')!r}")
        return ledger_amount(Decimal(str(cost))), "litellm"

    def _tell(self, error: Exception, said: Mapping[str, Any]) -> None:
        log.error("usage was not recorded (%s): %r", error, dict(said))
        if self._on_error is not None:
            self._on_error(error, said)


def tokens_of(response: Any) -> Tokens | None:
    """None: the answer says nothing of tokens. LiteLLM counts what was cached among the input, whoever the provider is."""
    usage = getattr(response, "usage", None)
    if usage is None:
        return None
    details = getattr(usage, "prompt_tokens_details", None)
    return Tokens(
        getattr(usage, "prompt_tokens", 0) or 0,
        getattr(usage, "completion_tokens", 0) or 0,
        getattr(details, "cached_tokens", 0) or 0,
        getattr(details, "cache_creation_tokens", 0) or 0,
    )


def _is_by_text_tokens(call: Call, response: Any) -> bool:
    """Whether the price follows from the model and its text tokens alone."""
    said = call.get("optional_params") or {}
    if call.get("call_type") not in BY_TOKENS or any(said.get(name) for name in PRICED_OTHERWISE):
        return False
    if getattr(response, "service_tier", None) not in (None, "default", "standard"):
        return False
    if use_custom_pricing_for_model(dict(call.get("litellm_params") or {})):
        return False  # the application's own price
    usage = getattr(response, "usage", None)
    parts = [getattr(usage, name, None) for name in ("prompt_tokens_details", "completion_tokens_details")]
    long_cached = getattr(getattr(parts[0], "cache_creation_token_details", None), "ephemeral_1h_input_tokens", None)
    others = [getattr(part, name, None) for part in parts for name in OTHER_TOKENS]
    return not any([*others, long_cached, getattr(usage, "server_tool_use", None)])


def _is_telling(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__qualname__", "") in TELLING


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
