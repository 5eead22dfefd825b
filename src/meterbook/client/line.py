"""The line to the server: one request, or one that is tried until it is answered or its time is over."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from meterbook.client.answers import UNREADABLE, Fault, NotTaken, judge
from meterbook.client.pauses import Pauses
from meterbook.client.waiting_asyncio import Signal
from meterbook.errors import ClientClosed, InvalidUsage, Problem, ServerFault, UnexpectedAnswer, Unreachable

Answer = TypeVar("Answer")
ANSWER_BYTES_MAX = 64 * 1024 * 1024
TRY_S_MIN = 0.05
"""In less no server answers, and why the try before failed says more."""
AWAY_S = 1.0
"""So long after a failure a server is believed to be away, by calls that may do without it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """In seconds. `timeout_s` bounds one try: a server that is slower is away. `connect_timeout_s` is part of it."""

    timeout_s: float
    connect_timeout_s: float


class TooLate(Exception):
    """The answer took longer than the try may, or is longer than any answer."""


class Line:
    """Safe for concurrent use."""

    def __init__(self, url: str, key: str, limits: Limits) -> None:
        _check_address(url, key)
        self._limits = limits
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=20),
        )
        self._pause = Signal()
        self._away_until = 0.0
        self.trouble: str | None = None
        """Why the last try failed; None if it did not."""
        self.is_gone = False
        """Nothing has been taken since it went away."""

    async def aclose(self) -> None:
        await self._http.aclose()

    @property
    def is_away(self) -> bool:
        """A moment ago it was."""
        return time.monotonic() < self._away_until

    async def ask(
        self,
        method: str,
        path: str,
        said: Mapping[str, Any] | list[Any],
        read: Callable[[Any], Answer],
        deadline_s: float,
        *,
        partial: bool = False,
    ) -> Answer:
        """Tried until it is answered, refused for good, or `deadline_s` are over. Raises the server's refusal, or `Unavailable`."""
        until = time.monotonic() + deadline_s
        pauses = Pauses()
        while True:
            answer = await self.try_once(method, path, said, read, until, partial=partial)
            if not isinstance(answer, NotTaken):
                return answer
            pause_s = pauses.next_s(answer.asked_s)
            if not answer.is_worth_retrying or time.monotonic() + pause_s + TRY_S_MIN >= until:
                self.give_up(answer)
                raise answer.error
            await self._pause.wait(pause_s)

    async def try_once(
        self,
        method: str,
        path: str,
        said: Mapping[str, Any] | list[Any],
        read: Callable[[Any], Answer],
        until: float | None = None,
        *,
        partial: bool = False,
    ) -> Answer | NotTaken:
        """One request. Only an answer that can be read whole acknowledges anything."""
        answer: NotTaken | Any = await self._exchange(method, path, said, until, partial=partial)
        if not isinstance(answer, NotTaken):
            try:
                taken = read(answer)
            except UNREADABLE as wrong:
                unexpected = UnexpectedAnswer(
                    f"an answer without {wrong}: is this a meterbook server, and not an older one?"
                )
                answer = NotTaken(Fault.AWAY, unexpected)
            else:
                self._away_until, self.trouble, self.is_gone = 0.0, None, False
                return taken
        self._note(answer)
        return answer

    def give_up(self, answer: NotTaken) -> None:
        """Not at the first failure: one connection that is cut is no server that is away."""
        if answer.fault is Fault.AWAY:
            self._away_until, self.is_gone = time.monotonic() + AWAY_S, True
        elif isinstance(answer.error, ServerFault):
            self.is_gone = True

    def _note(self, answer: NotTaken) -> None:
        if answer.fault in (Fault.AWAY, Fault.BARRED, Fault.FORBIDDEN):
            self.trouble = f"{answer.error.code}: {answer.error}"

    async def _exchange(
        self, method: str, path: str, said: Mapping[str, Any] | list[Any], until: float | None, *, partial: bool
    ) -> Any:
        seconds = self._limits.timeout_s if until is None else min(self._limits.timeout_s, until - time.monotonic())
        try:
            return await self._request(method, path, said, max(0.001, seconds), partial=partial)
        except RuntimeError as error:
            if self._http.is_closed:
                raise ClientClosed(
                    "the client was closed while this call was in work: it may have been recorded"
                ) from error
            raise
        except (httpx.RequestError, TooLate) as error:
            why = str(error) or type(error).__name__
            return NotTaken(Fault.AWAY, Unreachable(f"{self._http.base_url} does not answer: {why}"))

    async def _request(
        self, method: str, path: str, said: Mapping[str, Any] | list[Any], seconds: float, *, partial: bool
    ) -> Any:
        """The times of single reads are httpx's to bound; that they add up to no more than the try may take is bounded here."""
        until = time.monotonic() + seconds
        timeout = httpx.Timeout(seconds, connect=min(seconds, self._limits.connect_timeout_s))
        request = self._http.build_request(method, path, timeout=timeout, **_arguments(method, said, partial=partial))
        answer = await self._http.send(request, stream=True)
        try:
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if time.monotonic() > until or len(body) > ANSWER_BYTES_MAX:
                    raise TooLate(f"its answer is not there after {seconds:.1f} s")
        finally:
            await answer.aclose()
        told = said if isinstance(said, Mapping) else {}
        return judge(answer.status_code, bytes(body), answer.headers.get("Retry-After"), told)


def _arguments(method: str, said: Mapping[str, Any] | list[Any], *, partial: bool) -> dict[str, Any]:
    if method == "GET":
        return {"params": said}
    content = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
    params = {"partial": "true"} if partial else None
    return {"content": content, "params": params, "headers": {"Content-Type": "application/json"}}


def _check_address(url: str, key: object) -> None:
    """Raises `InvalidUsage`."""
    problems = []
    try:
        address = httpx.URL(url)
        if address.scheme not in ("http", "https") or not address.host:
            problems.append(
                Problem(None, "url", "invalid_url", "pass the server's address, such as https://meterbook.internal")
            )
        if address.userinfo or address.query or address.fragment:
            advice = "holds more than an address: the key is passed as `key`, which no message shows"
            problems.append(Problem(None, "url", "invalid_url", advice))
    except (httpx.InvalidURL, TypeError) as wrong:
        problems.append(Problem(None, "url", "invalid_url", str(wrong)))
    if not (isinstance(key, str) and key.isascii() and key.isprintable() and key.strip() == key and key):
        problems.append(Problem(None, "key", "invalid_text", "pass an API key, made by `meterbook keys create`"))
    if problems:
        raise InvalidUsage(problems)
