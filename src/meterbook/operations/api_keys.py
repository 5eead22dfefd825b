"""Makes, knows again, replaces and ends keys of the HTTP door."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.api_keys import (
    PREFIX_DIGITS,
    SCOPES,
    SECRET_BYTES,
    ApiKey,
    NewApiKey,
    digest_of,
    key_text,
    prefix_of,
)
from meterbook.core.arguments import check_moment, check_whole
from meterbook.core.entries import check_text
from meterbook.errors import InvalidKey, InvalidUsage, Problem, UnknownKey
from meterbook.postgres import api_keys

OVERLAP_S_MAX = 90 * 24 * 3600
NO_DIGEST = bytes(32)


@dataclass(frozen=True, slots=True)
class KeyTerms:
    name: str
    scopes: Sequence[str]
    by: str
    expires_at: datetime | None = None
    replaces: int | None = None


async def make_key(conn: AsyncConnection[Any], terms: KeyTerms, at: datetime | None) -> NewApiKey:
    """Raises `InvalidUsage`, and `NotPermitted` where this login is neither owner nor keeper."""
    _check(terms, at or datetime.now(UTC))
    prefix = secrets.token_hex(PREFIX_DIGITS // 2)
    text = key_text(prefix, secrets.token_hex(SECRET_BYTES))
    scopes = sorted(set(terms.scopes), key=SCOPES.index)
    arguments = {"prefix": prefix, "digest": digest_of(text), "name": terms.name, "scopes": scopes, "by_whom": terms.by}
    made = {**arguments, "expires_at": terms.expires_at, "replaces": terms.replaces, "at": at}
    id_ = await api_keys.ask(conn, "make_key", made)
    created = at or datetime.now(UTC)
    known = ApiKey(
        id_, prefix, terms.name, tuple(scopes), created, terms.by, terms.expires_at, None, None, terms.replaces
    )
    return NewApiKey(known, text)


async def replace_key(
    conn: AsyncConnection[Any], old: ApiKey, by: str, overlap_s: int, at: datetime | None
) -> NewApiKey:
    """A second key of the same name and scopes; the first goes on for `overlap_s`, so that both work while it is exchanged."""
    moment = at or datetime.now(UTC)
    check_whole("overlap_s", overlap_s, 0, OVERLAP_S_MAX)
    if not old.lives_at(moment):
        raise UnknownKey(f"key {old.id} has ended: make a new one")
    made = await make_key(conn, KeyTerms(old.name, old.scopes, by, replaces=old.id), at)
    await end_key(conn, old.id, moment + timedelta(seconds=overlap_s) if overlap_s else None, at)
    return made


async def end_key(conn: AsyncConnection[Any], id_: int, ends_at: datetime | None, at: datetime | None) -> bool:
    """False: it had ended. Raises `UnknownKey`."""
    ended: bool | None = await api_keys.ask(conn, "end_key", {"id": id_, "ends_at": ends_at, "at": at})
    if ended is None:
        raise UnknownKey(f"no key has the id {id_}")
    return ended


async def know_key(conn: AsyncConnection[Any], text: str, at: datetime | None) -> ApiKey:
    """Raises `InvalidKey`, which says nothing of why: unknown, ended and wrong keys are told alike."""
    kept = await api_keys.find_key(conn, prefix_of(text))
    is_same = compare_digest(digest_of(text), NO_DIGEST if kept is None else kept.digest)
    if kept is None or not is_same or not kept.key.lives_at(at or datetime.now(UTC)):
        raise InvalidKey
    await api_keys.ask(conn, "note_use", {"id": kept.key.id, "at": at})
    return kept.key


def _check(terms: KeyTerms, now: datetime) -> None:
    check_text("name", terms.name)
    check_text("by", terms.by)
    if not isinstance(terms.scopes, list | tuple):
        raise InvalidUsage([Problem(None, "scopes", "unknown_scope", f"pass a list of {', '.join(SCOPES)}")])
    problems = [
        Problem(None, "scopes", "unknown_scope", f"{scope!r} is not one of {', '.join(SCOPES)}")
        for scope in terms.scopes
        if scope not in SCOPES
    ]
    if not terms.scopes:
        problems.append(Problem(None, "scopes", "missing", "name at least one scope"))
    if terms.expires_at is not None and check_moment("expires_at", terms.expires_at) <= now:
        problems.append(Problem(None, "expires_at", "invalid_time", "is past"))
    if problems:
        raise InvalidUsage(problems)
