"""What may be recorded (BEHAVIOUR §3): a caller's usage, checked, numbered, keyed and fingerprinted. Every bad entry is named."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple, TypeGuard, TypeVar

from meterbook.core.attribution import Attribution
from meterbook.core.event_keys import (
    ascii_field,
    of_ascii_event_key,
    of_ascii_fields,
    of_event_key,
    of_fingerprint,
    of_identity,
)
from meterbook.core.money import ordinary_usage, parse_usage
from meterbook.errors import InvalidUsage, Problem

Parsed = TypeVar("Parsed")
CATEGORIES = ("model", "fixed", "tool")
KEY_LENGTH_MAX = 512
ID_LENGTH_MAX = 255
SOURCE_LENGTH_MAX = 128
DESCRIPTION_LENGTH_MAX = 512
ID_BELOW = 2**63
METADATA_BYTES_MAX = 4096
METADATA_LEVELS_MAX = 4
ENTITY_KINDS = ("user", "organization")
_NUL_ESCAPED = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
ACTORS_REMEMBERED_MAX = 8192
WORK_REMEMBERED_MAX = 1024
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


class Usage(NamedTuple):
    """One entry as a caller says it. `amount`: str, Decimal or int; `occurred_at`: aware, now if it is left out."""

    actor: str
    source: str
    description: str
    amount: str | Decimal | int
    category: str = "model"
    event_key: str | None = None
    line: str | None = None
    entity: str | None = None
    period: int | None = None
    workspace: str | None = None
    workflow: str | None = None
    execution: str | None = None
    source_reference: str | None = None
    occurred_at: datetime | None = None
    metadata: Mapping[str, Any] | None = None
    attribution: Attribution | str | None = None


USAGE_FIELDS = frozenset(Usage._fields)
_REQUIRED = ("actor", "source", "description", "amount")
_LENGTHS = {
    "actor": ID_LENGTH_MAX,
    "source": SOURCE_LENGTH_MAX,
    "description": DESCRIPTION_LENGTH_MAX,
    "event_key": KEY_LENGTH_MAX,
    "line": ID_LENGTH_MAX,
    "entity": ID_LENGTH_MAX + len("organization:"),
    "workspace": ID_LENGTH_MAX,
    "workflow": ID_LENGTH_MAX,
    "execution": ID_LENGTH_MAX,
    "source_reference": ID_LENGTH_MAX,
}
_ERASED = re.compile(r"#[0-9]+")
_OPTIONAL_TEXTS = tuple(name for name in _LENGTHS if name not in _REQUIRED)


class Entry(NamedTuple):
    """One entry, sound: ready to be written. `position` is its place in the call, from 0; `key` and `fingerprint` are 32 hex digits."""

    position: int
    key: str
    fingerprint: str
    actor: str
    source: str
    description: str
    amount: Decimal
    category: str
    occurred_at: datetime | None
    workspace: str | None
    workflow: str | None
    execution: str | None
    source_reference: str | None
    line: str | None
    metadata: str | None
    entity: str | None
    period: int | None
    payer_id: int | None
    payer_period: int | None
    payer: str | None


_POSITION = itemgetter(0)
_NEW_TUPLE = tuple.__new__
"""A named tuple of all its fields in a quarter of the time that its own constructor takes."""


class _Refused(Exception):
    def __init__(self, field: str, code: str, message: str) -> None:
        self.field, self.code, self.message = field, code, message


@dataclass(slots=True)
class _Checked:
    """A caller's usage with its amount parsed and its attribution read, not numbered yet."""

    index: int
    usage: Usage
    amount: Decimal
    metadata: str | None
    attribution: Attribution | None

    @property
    def workspace(self) -> str | None:
        if self.usage.workspace is None and self.attribution is not None:
            return self.attribution.workspace
        return self.usage.workspace

    @property
    def identity(self) -> tuple[str | None, ...]:
        said = self.usage
        return (
            said.actor, said.source, said.category, said.description, said.source_reference, said.execution,
            said.workflow, self.workspace, said.line,
        )  # fmt: skip


_Keyed = tuple[_Checked, str | None]
AMBIGUOUS = "several entries of this call are the same work by all that is said of them: name a line or an event_key"


def check_entries(said: Sequence[Usage | Mapping[str, Any]], currency: str) -> list[Entry]:
    """The entries of one call, in its order; those of amount 0 are numbered like the others and left out.

    Raises `InvalidUsage` with every problem of every entry.
    """
    sound, problems = _checked_entries(said, currency, _keyed)
    if problems:
        raise InvalidUsage(problems)
    return sound


def check_each_entry(said: Sequence[Usage | Mapping[str, Any]], currency: str) -> tuple[list[Entry], list[Problem]]:
    """The same, for a call that takes what is sound: the sound entries, and the problems of the others.

    Entries of equal identity are no sound ones there: numbered among those that happen to be sound, one would get another's number, and be
    charged again, when the call is repeated with the others mended.
    """
    return _checked_entries(said, currency, _keyed_alone)


def _checked_entries(
    said: Sequence[Usage | Mapping[str, Any]], currency: str, keyed: Callable[[Sequence[_Checked]], Iterator[_Keyed]]
) -> tuple[list[Entry], list[Problem]]:
    _check_listed(said)
    sound: list[Entry] = []
    checked: list[_Checked] = []
    problems: list[Problem] = []
    for index, one in enumerate(said):
        try:
            ordinary = _ordinary_entry(index, one, currency)
            if ordinary is None:
                checked.append(_check(index, one))
            else:
                sound.append(ordinary)
        except _Refused as refused:
            problems.append(Problem(index, refused.field, refused.code, refused.message))
    if checked:
        for each, key in keyed(checked):
            if key is None:
                problems.append(Problem(each.index, "event_key", "ambiguous_identity", AMBIGUOUS))
            elif each.amount:
                sound.append(_entry(each, key, currency))
        sound.sort(key=_POSITION)
        problems.sort(key=lambda problem: problem.index or 0)
    return sound, problems


def _check_listed(said: object) -> None:
    if isinstance(said, Usage | Mapping | str | bytes) or not isinstance(said, Iterable):
        message = f"{type(said).__name__} is no list of entries: pass a list of Usage or of dicts"
        raise InvalidUsage([Problem(None, "entries", "invalid_entries", message)])


def _keyed_alone(checked: Sequence[_Checked]) -> Iterator[_Keyed]:
    """Without a key where the identity is another entry's too."""
    alike = Counter(one.identity for one in checked if one.usage.event_key is None)
    for one, key in _keyed(checked):
        yield one, None if one.usage.event_key is None and alike[one.identity] > 1 else key


def _ordinary_entry(index: int, said: Usage | Mapping[str, Any], currency: str) -> Entry | None:
    """The entry of a caller who names its key and says nothing out of the ordinary, as most do, at half the cost.

    None: whatever else, sound or not, is left to the rules below (`_check`); a test holds the two against each other.
    """
    if type(said) is not Usage:
        return None
    (actor, source, description, amount, category, event_key, line, entity, period, workspace, workflow, execution,
     source_reference, occurred_at, metadata, attribution) = said  # fmt: skip
    if entity is not None or period is not None or attribution is not None:
        return None
    for text in (line, workspace, workflow, execution, source_reference):
        if text is not None and not _is_ordinary(text, ID_LENGTH_MAX):
            return None
    digits = ordinary_usage(amount)
    if digits is None or digits == "0" or not _is_ordinary(event_key, KEY_LENGTH_MAX):
        return None
    who = _actor_field(actor) if type(actor) is str else None
    what = (
        _work_fields(category, source, description)
        if type(category) is type(source) is type(description) is str
        else None
    )
    if who is None or what is None or not (occurred_at is None or _is_ordinary_time(occurred_at)):
        return None
    return _NEW_TUPLE(Entry, (
        index, of_ascii_event_key(event_key), of_ascii_fields(who + what, digits, currency), actor, source, description,
        Decimal(digits), category, occurred_at, workspace, workflow, execution, source_reference, line,
        None if metadata is None else _check_metadata(metadata), None, None, None, None, None,
    ))  # fmt: skip


def _is_ordinary(text: object, length_max: int) -> TypeGuard[str]:
    return type(text) is str and 0 < len(text) <= length_max and text.isascii() and "\0" not in text


def _is_ordinary_time(occurred_at: datetime) -> bool:
    return type(occurred_at) is datetime and occurred_at.tzinfo is UTC and occurred_at >= EARLIEST


@lru_cache(ACTORS_REMEMBERED_MAX)
def _actor_field(actor: str) -> str | None:
    """None also for `#7`, which is how an actor that was erased is shown."""
    return ascii_field(actor) if _is_ordinary(actor, ID_LENGTH_MAX) and actor[0] != "#" else None


@lru_cache(WORK_REMEMBERED_MAX)
def _work_fields(category: str, source: str, description: str) -> str | None:
    if (
        category in CATEGORIES
        and _is_ordinary(source, SOURCE_LENGTH_MAX)
        and _is_ordinary(description, DESCRIPTION_LENGTH_MAX)
    ):
        return ascii_field(category) + ascii_field(source) + ascii_field(description)
    return None


def _entry(one: _Checked, key: str, currency: str) -> Entry:
    usage, attribution = one.usage, one.attribution
    print_ = of_fingerprint(usage.actor, usage.category, usage.source, usage.description, one.amount, currency)
    return Entry(
        one.index, key, print_, usage.actor, usage.source, usage.description, one.amount, usage.category,
        None if usage.occurred_at is None else usage.occurred_at.astimezone(UTC),
        one.workspace, usage.workflow, usage.execution, usage.source_reference, usage.line,
        one.metadata, usage.entity, usage.period,
        attribution.entity_id if attribution else None, attribution.period if attribution else None,
        attribution.entity if attribution else None,
    )  # fmt: skip


def acted_by(entry: Entry, actor: str, currency: str) -> Entry:
    """The same entry, with its fingerprint, of somebody who became known after it was checked."""
    print_ = of_fingerprint(actor, entry.category, entry.source, entry.description, entry.amount, currency)
    return entry._replace(actor=actor, fingerprint=print_)


def _keyed(checked: Sequence[_Checked]) -> Iterator[_Keyed]:
    """Entries of equal identity are numbered in order of amount, zeros included: their order in the call doesn't matter."""
    alike: dict[tuple[str | None, ...], list[_Checked]] = defaultdict(list)
    for one in checked:
        if one.usage.event_key is None:
            alike[one.identity].append(one)
    ordinals = {
        one.index: ordinal
        for group in alike.values()
        for ordinal, one in enumerate(sorted(group, key=lambda one: (one.amount, one.index)))
    }
    for one in checked:
        if one.usage.event_key is None:
            yield one, of_identity(one.identity, ordinals[one.index])
        else:
            yield one, of_event_key(one.usage.event_key)


def _check(index: int, said: Usage | Mapping[str, Any]) -> _Checked:
    usage = said if isinstance(said, Usage) else _usage_of(said)
    _check_texts(usage)
    if usage.category not in CATEGORIES:
        raise _Refused("category", "unknown_category", f"{usage.category!r} is not one of {', '.join(CATEGORIES)}")
    try:
        amount = parse_usage(usage.amount)
    except ValueError as wrong:
        raise _Refused("amount", "invalid_amount", str(wrong)) from None
    if usage.entity is not None:
        _check_entity(usage.entity)
    if not (usage.period is None or is_id(usage.period)):
        raise _Refused("period", "invalid_period", "pass the id of a period, a whole number")
    if usage.event_key is None and usage.source_reference is None and usage.execution is None:
        raise _Refused("event_key", "no_identity", "name an event_key, a source_reference or an execution")
    if usage.occurred_at is not None:
        _check_time(usage.occurred_at)
    attribution = None if usage.attribution is None else _check_attribution(usage, usage.attribution)
    metadata = None if usage.metadata is None else _check_metadata(usage.metadata)
    return _Checked(index, usage, amount, metadata, attribution)


def _usage_of(said: Mapping[str, Any]) -> Usage:
    if not isinstance(said, Mapping):
        raise _Refused("entry", "invalid_entry", f"{type(said).__name__} is no entry: pass a Usage or a dict")
    for name in said.keys() - USAGE_FIELDS:
        raise _Refused(str(name), "unknown_field", "no such field")
    for name in _REQUIRED:
        if name not in said:
            raise _Refused(name, "missing", "is required")
    return Usage(**said)


def _check_texts(usage: Usage) -> None:
    for name in ("actor", "source", "description"):
        _check_text(name, getattr(usage, name), _LENGTHS[name])
    if usage.actor[0] == "#" and _ERASED.fullmatch(usage.actor):
        raise _Refused("actor", "invalid_text", f"{usage.actor!r} is how one that was erased is shown, no name")
    for name in _OPTIONAL_TEXTS:
        value = getattr(usage, name)
        if value is not None:
            _check_text(name, value, _LENGTHS[name])


def _check_text(name: str, value: object, length_max: int) -> str:
    if not isinstance(value, str):
        raise _Refused(name, "invalid_text", f"{type(value).__name__} is no text")
    if not value:
        raise _Refused(name, "empty", "is empty")
    if len(value) > length_max:
        raise _Refused(name, "too_long", f"has {len(value)} characters, at most {length_max} are taken")
    if not value.isascii() or "\0" in value:
        _check_characters(name, value)
    return value


def _check_characters(name: str, value: str) -> None:
    if "\0" in value:
        raise _Refused(name, "invalid_text", "contains a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Refused(name, "invalid_text", "is not valid Unicode (a lone surrogate)") from None


def check_text(name: str, value: object, length_max: int = ID_LENGTH_MAX) -> str:
    """A text outside an entry, such as a reason or an id, by the same rules. Raises `InvalidUsage`."""
    try:
        return _check_text(name, value, length_max)
    except _Refused as refused:
        raise InvalidUsage([Problem(None, name, refused.code, refused.message)]) from None


def check_party(actor: object, workspace: object) -> None:
    """Who acts, and where: None for nowhere in particular. Raises `InvalidUsage`."""
    check_text("actor", actor)
    if workspace is not None:
        check_text("workspace", workspace)


def check_amount(value: object, field: str = "amount") -> Decimal:
    """An amount of usage outside an entry, by the same rules. Raises `InvalidUsage`."""
    return check_parsed(parse_usage, value, field)


def check_parsed(parse: Callable[[object], Parsed], value: object, field: str = "amount") -> Parsed:
    """An amount outside an entry, by one of the rules of `core.money`. Raises `InvalidUsage`."""
    try:
        return parse(value)
    except ValueError as wrong:
        raise InvalidUsage([Problem(None, field, "invalid_amount", str(wrong))]) from None


def check_entity(entity: object) -> str:
    """`user:<id>` or `organization:<id>`. Raises `InvalidUsage`."""
    try:
        _check_entity(_check_text("entity", entity, _LENGTHS["entity"]))
    except _Refused as refused:
        raise InvalidUsage([Problem(None, "entity", refused.code, refused.message)]) from None
    return str(entity)


def _check_entity(entity: str) -> None:
    kind, _, external_id = entity.partition(":")
    if kind not in ENTITY_KINDS or not external_id:
        advice = f": write user:{entity} or organization:{entity}" if entity and ":" not in entity else ""
        raise _Refused("entity", "invalid_entity", f"{entity!r} is not user:<id> or organization:<id>{advice}")
    if len(external_id) > ID_LENGTH_MAX:
        raise _Refused(
            "entity", "too_long", f"has an id of {len(external_id)} characters, at most {ID_LENGTH_MAX} are taken"
        )


def is_id(value: object) -> bool:
    """Whether a period could have it: a whole number that fits into PostgreSQL's bigint."""
    return isinstance(value, int) and not isinstance(value, bool) and -ID_BELOW <= value < ID_BELOW


def _check_time(occurred_at: object) -> None:
    if not isinstance(occurred_at, datetime):
        raise _Refused("occurred_at", "invalid_time", f"{type(occurred_at).__name__} is no datetime")
    if occurred_at.utcoffset() is None:
        raise _Refused("occurred_at", "naive_time", "has no time zone: pass an aware datetime")
    try:
        in_utc = occurred_at.astimezone(UTC)
    except OverflowError:
        raise _Refused("occurred_at", "invalid_time", "is no time of the calendar in UTC") from None
    if in_utc < EARLIEST:
        raise _Refused("occurred_at", "invalid_time", "is before 1970")


def _check_attribution(usage: Usage, given: Attribution | str) -> Attribution:
    try:
        attribution = given if isinstance(given, Attribution) else Attribution.from_token(given)
    except (ValueError, TypeError, AttributeError):
        raise _Refused("attribution", "invalid_attribution", "is not a token that resolve gave out") from None
    if attribution.actor != usage.actor:
        raise _Refused("attribution", "attribution_disagrees", "was resolved for another actor")
    if usage.workspace not in (None, attribution.workspace):
        raise _Refused("attribution", "attribution_disagrees", "was resolved for another workspace")
    return attribution


def _check_metadata(metadata: object) -> str:
    if not isinstance(metadata, Mapping):
        raise _Refused("metadata", "invalid_metadata", "is not an object")
    if _levels(metadata) > METADATA_LEVELS_MAX:
        raise _Refused("metadata", "too_deep", f"has more than {METADATA_LEVELS_MAX} levels")
    try:
        text = json.dumps(
            metadata, default=_plain_mapping, allow_nan=False, ensure_ascii=False
        )  # spaced as PostgreSQL writes it
        size = len(text.encode())
    except (TypeError, ValueError) as wrong:
        raise _Refused("metadata", "invalid_metadata", f"is not JSON: {wrong}") from None
    if size > METADATA_BYTES_MAX:
        raise _Refused("metadata", "too_large", f"has {size} bytes, at most {METADATA_BYTES_MAX} are taken")
    if _NUL_ESCAPED.search(text):
        raise _Refused("metadata", "invalid_metadata", "contains a NUL character")
    return text


def _plain_mapping(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _levels(value: object, beyond: int = METADATA_LEVELS_MAX + 1) -> int:
    if beyond == 0:
        return 0
    if isinstance(value, Mapping):
        return 1 + max((_levels(one, beyond - 1) for one in value.values()), default=0)
    if isinstance(value, list | tuple):
        return 1 + max((_levels(one, beyond - 1) for one in value), default=0)
    return 0
