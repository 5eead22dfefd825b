"""The calls of a Book that a server needs besides: whose key it is, what was done by whom, whether the database answers."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

from meterbook.book.access import LedgerAccess
from meterbook.core.api_keys import Act, ApiKey, NewApiKey
from meterbook.core.arguments import check_limit, check_whole
from meterbook.core.entries import ID_BELOW, check_text
from meterbook.core.upkeep import LedgerGauges
from meterbook.errors import InvalidKey, MeterbookError, UnknownKey
from meterbook.operations.api_keys import KeyTerms, end_key, know_key, make_key, replace_key
from meterbook.postgres import api_keys

OVERLAP_S = 24 * 3600
ACTS_PER_LIST_MAX = 1000
ANSWER_TIMEOUT_S = 2
"""Who asks whether the database answers waits no longer for a connection."""


SUBJECT_LENGTH_MAX = 300


def check_id(name: str, value: object) -> int:
    return check_whole(name, value, 1, ID_BELOW - 1)


class KeyCalls(LedgerAccess):
    """API keys and the log of administrative acts."""

    # ----------------------------------------------------------------------------------------------------------------- keys

    async def make_key(
        self, name: str, *, scopes: Sequence[str], by: str, expires_at: datetime | None = None
    ) -> NewApiKey:
        """A new API key; its text is in the answer and nowhere else. `by`: who makes it. Raises `InvalidUsage`, `NotPermitted`."""
        async with self._pool.connection() as conn:
            return await make_key(conn, KeyTerms(name, scopes, by, expires_at), self._at())

    async def keys(self) -> list[ApiKey]:
        """Newest first, ended ones too."""
        async with self._pool.connection() as conn:
            return await api_keys.list_keys(conn)

    async def replace_key(self, key_id: int, *, by: str, overlap_s: int = OVERLAP_S) -> NewApiKey:
        """A second key with the same name and scopes; the first works for `overlap_s` longer. Raises `UnknownKey`."""
        check_id("key_id", key_id)
        async with self._pool.connection() as conn, conn.transaction():
            known = [key for key in await api_keys.list_keys(conn) if key.id == key_id]
            if not known:
                raise UnknownKey(f"no key has the id {key_id}")
            return await replace_key(conn, known[0], by, overlap_s, self._at())

    async def revoke_key(self, key_id: int) -> bool:
        """Ends a key now; servers that know it forget it within seconds. False: it had ended. Raises `UnknownKey`."""
        check_id("key_id", key_id)
        async with self._pool.connection() as conn:
            return await end_key(conn, key_id, None, self._at())

    async def know_key(self, text: str) -> ApiKey:
        """Whose key this is; notes that it was used, to the minute. Raises `InvalidKey`, `LedgerUnavailable`."""
        async with self._pool.connection() as conn:
            return await know_key(conn, text, self._at())

    async def living_key(self, prefix: str) -> ApiKey:
        """The key that a prefix names, if it has not ended: for who has proved it before. Raises `InvalidKey`, `InvalidUsage`."""
        check_text("prefix", prefix)
        async with self._pool.connection() as conn:
            kept = await api_keys.find_key(conn, prefix)
        if kept is None or not kept.key.lives_at(self._now()):
            raise InvalidKey
        return kept.key

    # ------------------------------------------------------------------------------------------------------------------ acts

    @asynccontextmanager
    async def act(
        self, by: str, act: str, subject: str, said: Mapping[str, Any], request: str = ""
    ) -> AsyncIterator[None]:
        """Notes an administrative act before it is carried out, and what came of it after. What can't be noted is not carried out.

        An act without an outcome was cut off, or its end could not be noted: it may or may not have taken effect.
        """
        for name, text in (("by", by), ("act", act), ("subject", subject)):
            check_text(name, text, SUBJECT_LENGTH_MAX)
        async with self._pool.connection() as conn:
            act_id = await api_keys.begin_act(conn, by, act, subject, said, request, self._at())
        try:
            yield
        except MeterbookError as error:
            await self._end_act(act_id, "failed" if error.retryable else "refused", error.code)
            raise
        await self._end_act(act_id, "done", None)

    async def acts(self, *, limit: int = 100, before: int | None = None, subject: str | None = None) -> list[Act]:
        """Newest first; `before`: an act's id, for the next page."""
        check_limit(limit, ACTS_PER_LIST_MAX)
        if before is not None:
            check_id("before", before)
        if subject is not None:
            check_text("subject", subject, SUBJECT_LENGTH_MAX)
        async with self._pool.connection() as conn:
            return await api_keys.list_acts(conn, limit, before, subject)

    async def gauges(self) -> LedgerGauges:
        """What waits, and for how long. Raises `LedgerUnavailable`."""
        async with self._pool.connection(ANSWER_TIMEOUT_S) as conn:
            return await api_keys.read_gauges(conn, self._at())

    async def answers(self) -> None:
        """Returns if the database answers. Raises `LedgerUnavailable`."""
        async with self._pool.connection(ANSWER_TIMEOUT_S) as conn:
            await api_keys.ask(conn, "answers", {})

    async def _end_act(self, act_id: int, outcome: str, code: str | None) -> None:
        arguments = {"id": act_id, "outcome": outcome, "code": code, "at": self._at()}
        with suppress(MeterbookError):  # the act was carried out, or refused, all the same
            async with self._pool.connection() as conn:
                await api_keys.ask(conn, "end_act", arguments)
