"""Routes of API keys and of the log of administrative acts. Making and ending keys needs a database login that is owner or keeper."""

from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.params import QueryParameter

from meterbook.http.acts import noted
from meterbook.http.bodies import read_body
from meterbook.http.door import GivenDoor
from meterbook.http.wire import ActsOut, ChangedOut, KeyIn, KeysOut, NewKeyOut, RotateIn, out

Read = Request[Any, Any, Any]
ADMIN = {"scope": "admin"}


@get("/keys", opt=ADMIN)
async def list_keys(door: GivenDoor) -> KeysOut:
    """Every key, newest first, ended ones too: what it may do and when it was last used, never the key itself."""
    return out(KeysOut, {"keys": await door.book.keys()})


@post("/keys", opt={**ADMIN, "body": KeyIn}, status_code=200)
async def make_key(request: Read, door: GivenDoor) -> NewKeyOut:
    """A new key; its text is said this once."""
    said = await read_body(request, KeyIn)
    async with noted(request, "make_key", said.name, said) as by:
        return out(
            NewKeyOut, await door.book.make_key(said.name, scopes=said.scopes, by=by, expires_at=said.expires_at)
        )


@post("/keys/rotate", opt={**ADMIN, "body": RotateIn}, status_code=200)
async def rotate_key(request: Read, door: GivenDoor) -> NewKeyOut:
    """A second key with the same name and scopes; the first works for `overlap_s` longer."""
    said = await read_body(request, RotateIn)
    async with noted(request, "rotate_key", f"key {said.id}", said) as by:
        made = await door.book.replace_key(said.id, by=by, overlap_s=said.overlap_s)
    door.forget_keys()
    return out(NewKeyOut, made)


@delete("/keys", opt=ADMIN, status_code=200)
async def revoke_key(
    request: Read,
    door: GivenDoor,
    id: Annotated[int, QueryParameter(ge=1, le=2**63 - 1)],  # noqa: A002  its name on the wire
) -> ChangedOut:
    """End a key now: here at once, on other servers within seconds."""
    async with noted(request, "revoke_key", f"key {id}", {}):
        ended = await door.book.revoke_key(id)
    door.forget_keys()
    return ChangedOut(ended)


@get("/audit", opt=ADMIN)
async def audit(
    door: GivenDoor,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
    before: Annotated[
        int | None, QueryParameter(ge=1, le=2**63 - 1, description="An act's id, for the next page.")
    ] = None,
    subject: Annotated[str | None, QueryParameter(min_length=1, max_length=300)] = None,
) -> ActsOut:
    """Administrative acts, newest first: who, what, when, and what came of it."""
    return out(ActsOut, {"acts": await door.book.acts(limit=limit, before=before, subject=subject)})


ROUTES = (list_keys, make_key, rotate_key, revoke_key, audit)
