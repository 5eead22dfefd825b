"""Bodies read without a float on the way: one document, an array, or lines as they come. Every mistake names its entry and field."""

import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from litestar import Request

from meterbook.core.entries import Usage
from meterbook.errors import InvalidUsage, Problem
from meterbook.http.door import door_of
from meterbook.http.problems import BadBody, BodyTooLarge, WrongMediaType
from meterbook.http.wire import EntryIn

Said = TypeVar("Said", bound=msgspec.Struct)
JSON = "application/json"
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
LINES_AT_ONCE = 1_000

ENTRY = msgspec.json.Decoder(EntryIn)
ENTRIES = msgspec.json.Decoder(list[EntryIn])
RAW_ENTRIES = msgspec.json.Decoder(list[msgspec.Raw])

_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"missing required field `(?P<field>[^`]*)`")
_UNKNOWN = re.compile(r"unknown field `(?P<field>[^`]*)`")

Read = Request[Any, Any, Any]


def media_type_of(request: Read) -> str:
    return str(request.headers.get("content-type", "")).partition(";")[0].strip().lower()


def require_json(request: Read) -> None:
    """A body of another kind is not guessed at: a form or text from a page of another site is none of ours."""
    if media_type_of(request) != JSON:
        raise WrongMediaType(f"send Content-Type: {JSON}")


async def read_body(request: Read, kind: type[Said]) -> Said:
    """One JSON document. Raises `BadBody` (no JSON), `InvalidUsage` (a field that is wrong)."""
    require_json(request)
    body = await request.body()
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as wrong:
        raise InvalidUsage([problem_of(None, wrong)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise BadBody(f"the body is no JSON: {wrong}") from None


def problem_of(index: int | None, wrong: msgspec.ValidationError) -> Problem:
    """msgspec's sentence as a problem: the field, a stable code, what to do."""
    said = str(wrong)
    place = _AT.search(said)
    text = said[: place.start()] if place else said
    missing, unknown = _MISSING.search(text), _UNKNOWN.search(text)
    if missing:
        return Problem(index, missing["field"], "missing", "is required")
    if unknown:
        return Problem(index, unknown["field"], "unknown_field", "no such field")
    name = place["path"] if place else "entry"
    if name in ("amount", "total", "cap"):
        return Problem(index, name, "invalid_amount", f'{text}: pass an exact amount as a string, such as "0.0123"')
    if name == "occurred_at":
        return Problem(index, name, "invalid_time", f"{text}: pass a time such as 2026-05-31T17:04:05Z")
    return Problem(index, name, "invalid_entry", text)


def decode_entry(line: bytes | msgspec.Raw, index: int) -> Usage | Problem:
    try:
        return ENTRY.decode(line).usage()
    except msgspec.ValidationError as wrong:
        return problem_of(index, wrong)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        return Problem(index, "entry", "invalid_entry", f"no JSON: {wrong}")


def decode_entries(body: bytes) -> list[Usage | Problem]:
    """Of an array, in its order. Raises `BadBody` for what is no JSON array."""
    try:
        return [entry.usage() for entry in ENTRIES.decode(body)]
    except msgspec.ValidationError:
        return _decode_each(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise BadBody(f"the body is no JSON: {wrong}") from None


def _decode_each(body: bytes) -> list[Usage | Problem]:
    try:
        raw = RAW_ENTRIES.decode(body)
    except msgspec.ValidationError:
        raise BadBody("the body is no array of entries") from None
    return [decode_entry(each, index) for index, each in enumerate(raw)]


@dataclass(slots=True)
class Lines:
    """Entries of lines that arrive in pieces of any size; holds the unfinished line and no more."""

    line_bytes_max: int
    entries_max: int
    read: int = 0
    rest: bytearray = field(default_factory=bytearray)

    def take(self, piece: bytes) -> list[Usage | Problem]:
        """The entries of the lines that this piece has finished. Raises `BodyTooLarge`."""
        self.rest += piece
        end = self.rest.rfind(b"\n") + 1
        if len(self.rest) - end > self.line_bytes_max:
            raise BodyTooLarge(f"line {self.read} has more than {self.line_bytes_max} bytes")
        whole = bytes(self.rest[:end])
        del self.rest[:end]
        return self._decode(whole)

    def finish(self) -> list[Usage | Problem]:
        """The last line, which may have no end."""
        whole = bytes(self.rest)
        self.rest.clear()
        return self._decode(whole)

    def _decode(self, whole: bytes) -> list[Usage | Problem]:
        try:
            decoded: list[Usage | Problem] = [entry.usage() for entry in ENTRY.decode_lines(whole)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            lines = [line for line in whole.split(b"\n") if line.strip()]
            decoded = [decode_entry(line, self.read + n) for n, line in enumerate(lines)]
        self.read += len(decoded)
        if self.read > self.entries_max:
            raise BodyTooLarge(f"a request takes at most {self.entries_max} entries; send the rest in another")
        return decoded


async def read_batch(request: Read) -> AsyncIterator[list[Usage | Problem]]:
    """A batch in parts, in its order: an array at once, lines as they come. Raises `WrongMediaType`, `BadBody`, `BodyTooLarge`."""
    settings = door_of(request).settings
    kind = media_type_of(request)
    if kind == JSON:
        entries = decode_entries(await request.body())
        if len(entries) > settings.entries_per_request_max:
            raise BodyTooLarge(f"a request takes at most {settings.entries_per_request_max} entries")
        yield entries
    elif kind in NDJSON:
        lines = Lines(settings.line_bytes_max, settings.entries_per_request_max)
        async for piece in request.stream():
            yield lines.take(piece)
        yield lines.finish()
    else:
        raise WrongMediaType(f"send Content-Type: {JSON} (an array) or {NDJSON[0]} (an entry a line)")


def all_sound(said: Iterable[Usage | Problem]) -> list[Usage]:
    """Raises `InvalidUsage` with every problem."""
    sound: list[Usage] = []
    problems: list[Problem] = []
    for each in said:
        if isinstance(each, Problem):
            problems.append(each)
        else:
            sound.append(each)
    if problems:
        raise InvalidUsage(problems)
    return sound
