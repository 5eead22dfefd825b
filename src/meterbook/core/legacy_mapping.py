"""Where a product keeps its counters (BEHAVIOUR §13): the mapping file of a cutover. A field is an expression over one table of theirs."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from meterbook.errors import InvalidMapping

FieldType = Literal["text", "amount", "time", "count", "flag"]


@dataclass(frozen=True, slots=True)
class Field:
    """What an expression must give. Optional ones that are not mapped are null."""

    type: FieldType
    required: bool = False


def _must(kind: FieldType) -> Field:
    return Field(kind, required=True)


RELATIONS: Mapping[str, Mapping[str, Field]] = {
    "counter": {
        "user_id": _must("text"),
        "running": _must("amount"),
        "last": Field("amount"),
        "billed": Field("amount"),
        "credits": Field("amount"),
        "usage_limit": Field("amount"),
        "blocked": Field("text"),
        "kept": Field("amount"),
        "kept_at": Field("time"),
    },
    "audit": {
        "id": _must("text"),
        "user_id": _must("text"),
        "occurred_at": _must("time"),
        "amount": _must("amount"),
        "indexed_at": Field("time"),
        "source": Field("text"),
        "description": Field("text"),
        "category": Field("text"),
        "workflow": Field("text"),
        "execution": Field("text"),
        "payer": Field("text"),
    },
    "subscription": {
        "id": _must("text"),
        "owner": _must("text"),
        "plan": _must("text"),
        "status": _must("text"),
        "starts_at": _must("time"),
        "ends_at": _must("time"),
        "seats": Field("count"),
        "interval": Field("text"),
        "cancel_at_period_end": Field("flag"),
        "stripe_customer": Field("text"),
        "stripe_subscription": Field("text"),
    },
    "organization": {
        "id": _must("text"),
        "usage_limit": Field("amount"),
        "credits": Field("amount"),
        "departed": Field("amount"),
    },
    "member": {
        "organization_id": _must("text"),
        "user_id": _must("text"),
        "role": _must("text"),
        "joined_at": Field("time"),
    },
}
"""Relation → field → what it holds. `counter` has a row a user, the others may be left out."""

REQUIRED_RELATIONS = ("counter",)
_TABLE_KEYS = ("from", "where")


@dataclass(frozen=True, slots=True)
class MappedRelation:
    """A table of theirs (or a sub-select in parentheses), and an expression a field; `where` keeps rows out."""

    source: str
    where: str | None
    expressions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LegacyMapping:
    """`relations`: those that are mapped. `digest` names the contents, so that no step goes on with another mapping than the one before."""

    relations: Mapping[str, MappedRelation]
    digest: str

    def has(self, relation: str, field: str | None = None) -> bool:
        found = self.relations.get(relation)
        return found is not None and (field is None or field in found.expressions)


def parse_mapping(text: str) -> LegacyMapping:
    """Raises `InvalidMapping` with every mistake: where it is, and what to write instead."""
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidMapping([f"the mapping is no TOML: {error}"]) from error
    problems = [_unknown_table(name) for name in read if name not in RELATIONS]
    problems += [f"[{name}] is missing: say which table has it" for name in REQUIRED_RELATIONS if name not in read]
    relations: dict[str, MappedRelation] = {}
    for name in RELATIONS:
        if name in read:
            relations[name] = _relation(name, read[name], problems)
    if problems:
        raise InvalidMapping(problems)
    return LegacyMapping(relations, _digest(relations))


def _unknown_table(name: str) -> str:
    return f"[{name}]: there is no such table in a mapping; there are {', '.join(RELATIONS)}"


def _relation(name: str, said: object, problems: list[str]) -> MappedRelation:
    fields = RELATIONS[name]
    if not isinstance(said, dict):
        problems.append(f"{name}: is no table of fields: begin it with [{name}]")
        return MappedRelation("", None, {})
    source = said.get("from")
    if not isinstance(source, str) or not source.strip():
        problems.append(f'{name}.from: is missing: name the table, as in from = "public.user_stats"')
    for field, expression in said.items():
        if field not in fields and field not in _TABLE_KEYS:
            problems.append(f"{name}.{field}: there is no such field; there are from, where, {', '.join(fields)}")
        elif not isinstance(expression, str) or not expression.strip():
            problems.append(f'{name}.{field}: is no expression: write it as text, as in {field} = "some_column"')
    problems += [
        f'{name}.{field}: is missing: name the column or expression that gives it, as in {field} = "{field}"'
        for field, wanted in fields.items()
        if wanted.required and field not in said
    ]
    expressions = {field: text for field, text in said.items() if field in fields and isinstance(text, str)}
    return MappedRelation(str(source), said.get("where"), expressions)


def _digest(relations: Mapping[str, MappedRelation]) -> str:
    said = [
        (name, relation.source, relation.where or "", *sorted(relation.expressions.items()))
        for name, relation in sorted(relations.items())
    ]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]


FAMILIES: Mapping[FieldType, frozenset[str]] = {
    "text": frozenset({"text", "varchar", "bpchar", "name"}),
    "amount": frozenset({"numeric", "int2", "int4", "int8"}),
    "time": frozenset({"timestamptz"}),
    "count": frozenset({"int2", "int4", "int8"}),
    "flag": frozenset({"bool"}),
}
"""The types of PostgreSQL that a field may have."""

_BARE_TIMES = frozenset({"timestamptz", "timestamp"})


def type_problem(relation: str, field: str, expression: str, found: str) -> str | None:
    """What is wrong with an expression of this type, and what to write; None: nothing."""
    wanted = RELATIONS[relation][field].type
    if found in FAMILIES[wanted] or (field == "indexed_at" and found in _BARE_TIMES):
        return None
    said = f"{relation}.{field}: {expression!r} is {found}, not {_WORDS[wanted]}"
    return f'{said}: write {field} = "{_MENDED[wanted].format(expression)}"{_WHY.get((wanted, found), "")}'


def says_utc(audit: MappedRelation) -> bool:
    """Whether `occurred_at` is `indexed_at` read as UTC, in so many words. If not, the two may be hours apart."""
    said, indexed = (audit.expressions.get(name, "").lower() for name in ("occurred_at", "indexed_at"))
    return "".join(said.split()).replace("(", "").replace(")", "") == "".join(indexed.split()) + "attimezone'utc'"


_WORDS: Mapping[FieldType, str] = {
    "text": "text",
    "amount": "an exact number",
    "time": "a time with a time zone",
    "count": "a whole number",
    "flag": "true or false",
}
_MENDED: Mapping[FieldType, str] = {
    "text": "({})::text",
    "amount": "({})::numeric",
    "time": "({}) at time zone 'UTC'",
    "count": "({})::integer",
    "flag": "({})::boolean",
}
_WHY: Mapping[tuple[FieldType, str], str] = {
    ("time", "timestamp"): " (or the zone in which the column was written)",
    ("amount", "float8"): ", and know that what a float lost is lost",
    ("amount", "float4"): ", and know that what a float lost is lost",
}
