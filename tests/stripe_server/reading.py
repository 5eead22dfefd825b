"""How objects are handed out: one, a page of them, searched, and with what they refer to in place of its id."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.stripe_server import shapes
from tests.stripe_server.refusals import Refused, invalid, missing
from tests.stripe_server.world import Thing, World, copied

PAGE = 10
PAGE_MAX = 100

# ---------------------------------------------------------------------------------------------------------------- one, and lists


def one(kind: str) -> Callable[[World, Thing, str], Thing]:
    def retrieve(world: World, _params: Thing, thing_id: str) -> Thing:
        return world.get(kind, thing_id)

    return retrieve


def many(kind: str, url: str) -> Callable[..., Thing]:
    """Newest first; each other parameter is a field that must be equal, `created` also a range."""

    def listed(world: World, params: Thing, *_path: str) -> Thing:
        wanted = {name: value for name, value in params.items() if name not in _PAGING}
        chosen = [thing for thing in world.of(kind) if all(_matches(thing, *each) for each in wanted.items())]
        return page(chosen[::-1], params, url)

    return listed


_PAGING = {"limit", "starting_after", "ending_before", "expand"}


def _matches(thing: Thing, name: str, wanted: Any) -> bool:
    special = _FILTERS.get(name)
    return special(thing, wanted) if special else bool(thing.get(name) == wanted)


def _has_status(thing: Thing, wanted: str) -> bool:
    ended = thing["status"] in {"canceled", "incomplete_expired"}
    return wanted == "all" or (wanted == "ended" and ended) or bool(thing["status"] == wanted)


def _of_subscription(thing: Thing, wanted: str) -> bool:
    details = (thing["parent"] or {}).get("subscription_details") or {}
    return bool(details.get("subscription") == wanted)


def _created(thing: Thing, wanted: Any) -> bool:
    bounds = wanted if isinstance(wanted, dict) else {"gte": wanted, "lte": wanted}
    return all(_COMPARE[sign](thing["created"], bound) for sign, bound in bounds.items())


_FILTERS: dict[str, Callable[[Thing, Any], bool]] = {
    "created": _created,
    "pending": lambda item, wanted: bool((item["invoice"] is None) == wanted),
    "price": lambda subscription, wanted: any(item["price"]["id"] == wanted for item in subscription["items"]["data"]),
    "status": _has_status,
    "subscription": _of_subscription,
    "types": lambda event, wanted: event["type"] in wanted,
}


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}


def subscriptions(world: World, params: Thing) -> Thing:
    """Without a status, those that have not been canceled."""
    if "status" in params:
        return many("subscription", "/v1/subscriptions")(world, params)
    wanted = {name: value for name, value in params.items() if name not in _PAGING}
    every = [thing for thing in world.of("subscription") if thing["status"] != "canceled"]
    chosen = [thing for thing in every if all(_matches(thing, *each) for each in wanted.items())]
    return page(chosen[::-1], params, "/v1/subscriptions")


def methods_of_customer(world: World, params: Thing, customer_id: str) -> Thing:
    world.named("customer", customer_id, "customer")
    return many("payment_method", f"/v1/customers/{customer_id}/payment_methods")(
        world, {**params, "customer": customer_id}
    )


def lines(world: World, params: Thing, invoice_id: str) -> Thing:
    invoice = world.get("invoice", invoice_id)
    return page(invoice["lines"]["data"], params, invoice["lines"]["url"])


def items(world: World, params: Thing) -> Thing:
    subscription = world.named("subscription", params["subscription"], "subscription")
    return page(subscription["items"]["data"], params, "/v1/subscription_items")


def page(things: list[Thing], params: Thing, url: str) -> Thing:
    """`limit` things after, or before, the one that is named."""
    if not 1 <= params.get("limit", PAGE) <= PAGE_MAX:
        raise invalid(f"A page has from 1 to {PAGE_MAX} objects.", param="limit")
    limit, ids = params.get("limit", PAGE), [thing["id"] for thing in things]
    for name in ("starting_after", "ending_before"):
        if name in params and params[name] not in ids:
            raise missing("object", params[name], param=name)
    if "ending_before" in params:
        before = things[: ids.index(params["ending_before"])]
        return shapes.a_list(url, before[-limit:], has_more=len(before) > limit)
    after = things[ids.index(params["starting_after"]) + 1 :] if "starting_after" in params else things
    return shapes.a_list(url, after[:limit], has_more=len(after) > limit)


# ---------------------------------------------------------------------------------------------------------------------- search


def searched(kind: str, url: str) -> Callable[[World, Thing], Thing]:
    """Behind by `search_lag_s`, as Stripe's is: what has just been made is not found yet."""

    def search(world: World, params: Thing) -> Thing:
        wanted = parse_query(params["query"])
        known = [thing for thing in world.of(kind) if world.now - thing["created"] >= world.search_lag_s]
        found = [thing for thing in known if wanted(thing)][::-1]
        start, limit = int(params.get("page", 0)), params.get("limit", PAGE)
        left = found[start + limit :]
        next_page = str(start + limit) if left else None
        found = found[start : start + limit]
        return {"object": "search_result", "data": found, "has_more": bool(left), "next_page": next_page, "url": url}

    return search


@dataclass(frozen=True, slots=True)
class Clause:
    field: str
    key: str | None
    sign: str
    value: str
    negated: bool

    def holds(self, thing: Thing) -> bool:
        found = thing.get(self.field)
        if self.key is not None:
            found = (found or {}).get(self.key)
        return self._compares(found) != self.negated

    def _compares(self, found: Any) -> bool:
        if found is None:
            return self.value == "null" and self.sign == ":"
        if self.sign == "~":
            return self.value.lower() in str(found).lower()
        if self.sign == ":":
            return str(found).lower() == self.value.lower()
        return _COMPARE[_SIGNS[self.sign]](int(found), int(self.value))


_SIGNS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_CLAUSE = re.compile(
    r"""\s*(?P<negated>-)?(?P<field>\w+)(?:\[(?P<q>["'])(?P<key>.*?)(?P=q)\])?\s*(?P<sign>>=|<=|[:~><])\s*"""
    r"""(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'|(?P<bare>\w+))\s*"""
)
_JOINT = re.compile(r"(AND|OR)\b", re.IGNORECASE)


def parse_query(query: str) -> Callable[[Thing], bool]:
    """Stripe's query language: clauses joined by AND or by OR, never by both."""
    clauses, joints, rest = [], set(), query
    while rest:
        found = _CLAUSE.match(rest)
        if not found:
            raise invalid(f"We were unable to parse your search query: {query}", param="query")
        clauses.append(_clause(found))
        rest = rest[found.end() :]
        joint = _JOINT.match(rest)
        if joint:
            joints.add(joint[1].upper())
            rest = rest[joint.end() :]
    if not clauses:
        raise invalid("A search query needs at least one clause.", param="query")
    if len(joints) > 1:
        raise invalid("A search query can't join clauses by both AND and OR.", param="query")
    combine: Callable[[Iterable[bool]], bool] = any if joints == {"OR"} else all
    return lambda thing: combine(clause.holds(thing) for clause in clauses)


def _clause(found: re.Match[str]) -> Clause:
    values = (found["double"], found["single"], found["bare"])
    value = next(text for text in values if text is not None)
    return Clause(found["field"], found["key"], found["sign"], re.sub(r"\\(.)", r"\1", value), bool(found["negated"]))


# ---------------------------------------------------------------------------------------------------------------------- expand


def rendered(world: World, thing: Thing, expand: Iterable[str]) -> Thing:
    """A copy, with the objects that `expand` names in place of their ids."""
    copy: Thing = copied(thing)
    for path in expand:
        _expand(world, copy, path.split("."))
    return copy


def _expand(world: World, thing: Any, path: list[str]) -> None:
    name, *rest = path
    if name == "data" and isinstance(thing.get("data"), list):
        for each in thing["data"]:
            _expand(world, each, rest)
        return
    if thing.get("object") == "invoice" and name == "payments":
        thing[name] = _payments_of(world, thing["id"])
    if name not in thing:
        raise Refused(400, "invalid_request_error", f"This property cannot be expanded ({name}).", param="expand")
    if isinstance(thing[name], str) and thing[name] in world.things:
        thing[name] = copied(world.things[thing[name]])
    if rest and isinstance(thing[name], dict):
        _expand(world, thing[name], rest)


def _payments_of(world: World, invoice_id: str) -> Thing:
    own = [copied(payment) for payment in world.of("invoice_payment") if payment["invoice"] == invoice_id]
    return shapes.a_list(f"/v1/invoice_payments?invoice={invoice_id}", own)
