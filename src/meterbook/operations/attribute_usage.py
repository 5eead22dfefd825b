"""First contact, or the clock has moved on: who pays is decided and periods are opened, apart from the transaction that records."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self

from psycopg import AsyncConnection

from meterbook.core.attribution import Attribution
from meterbook.core.entries import Entry
from meterbook.core.recorded import Answer
from meterbook.errors import AheadOfClock, AttributionUnavailable, MeterbookError, NotPermitted, UnknownEntity
from meterbook.postgres import recording

ATTEMPTS_MAX = 3


@dataclass(frozen=True, slots=True)
class Parties:
    """Who has to be known, with the payers and periods that follow from it."""

    actors: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    workspaces: tuple[str, ...] = ()

    @classmethod
    def of(cls, entries: Sequence[Entry], answers: Sequence[Answer] = ()) -> Self:
        """Of those that are unattributed; their answers name payers that the entries say by an attribution, or by a first flush."""
        named = {entry.entity for entry in entries} | {answer.entity for answer in answers}
        return cls(
            tuple({entry.actor for entry in entries}),
            tuple(entity for entity in named if entity is not None),
            tuple({entry.workspace for entry in entries if entry.workspace is not None}),
        )


class Attribute(Protocol):
    """Runs `attribute_usage` in a short transaction of its own."""

    async def __call__(self, parties: Parties, /) -> None: ...


async def attribute_usage(
    conn: AsyncConnection[Any], parties: Parties, at: datetime | None, lock_wait_ms: int = recording.ATTRIBUTE_WAIT_MS
) -> None:
    """Raises `AttributionUnavailable`, also when the look-up itself fails: never a default (I4)."""
    try:
        await recording.attribute(conn, parties.actors, parties.entities, parties.workspaces, at, lock_wait_ms)
    except NotPermitted as error:
        raise AttributionUnavailable(
            "the running period of somebody has to be opened first, and this login may only read: "
            "try again when somebody else has come by (a worker does), or grant it meterbook_writer"
        ) from error
    except AheadOfClock:
        raise  # a mistake of the caller's: no retry mends it
    except MeterbookError as error:
        raise AttributionUnavailable(f"who pays could not be determined: {error}") from error


async def resolve_attribution(
    conn: AsyncConnection[Any], attribute: Attribute, actor: str, workspace: str | None, at: datetime | None
) -> Attribution:
    """Before work begins. Raises `UnknownEntity` for a workspace that is not known, `AttributionUnavailable`."""
    for _ in range(ATTEMPTS_MAX):
        payer = await recording.find_payer(conn, actor, workspace, at)
        if payer.outcome == "unknown_workspace":
            raise UnknownEntity(f"workspace {workspace!r} is not known: call put_workspace first")
        if payer.outcome == "resolved":
            return Attribution(actor, workspace, payer.entity, payer.entity_id, payer.period)
        await attribute(Parties((actor,), (), () if workspace is None else (workspace,)))
    raise AttributionUnavailable
