"""What a request says: forms decoded, and held against the SDK's own types of parameters.

So a parameter that Stripe doesn't know, a number that is none, or an unknown choice is refused as Stripe refuses it; and one that Stripe
knows but this server doesn't act on is refused too (501): none is taken and ignored.
"""

import re
import types
import typing
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin
from urllib.parse import parse_qsl

import stripe
import stripe.billing
import stripe.params
import stripe.test_helpers
from stripe import StripeObject
from stripe._stripe_object import UntypedStripeObject
from typing_extensions import is_typeddict

from tests.stripe_server.refusals import Refused, invalid, not_here, required

METADATA_KEYS_MAX, METADATA_KEY_MAX, METADATA_VALUE_MAX = 50, 40, 500
MAPS = {dict, UntypedStripeObject}
_PART = re.compile(r"\[([^\]]*)\]")

# --------------------------------------------------------------------------------------------------------------------- decoding


def decoded(form: str) -> dict[str, Any]:
    """`a[b]=1&c[0][d]=2&e[]=3` → {"a": {"b": "1"}, "c": [{"d": "2"}], "e": ["3"]}: every leaf a string."""
    root: dict[str, Any] = {}
    for name, value in parse_qsl(form, keep_blank_values=True):
        head, _, rest = name.partition("[")
        parts = [head, *_PART.findall(f"[{rest}")] if rest else [head]
        _put(root, parts, value)
    return {name: _listed(value) for name, value in root.items()}


def _put(root: dict[str, Any], parts: list[str], value: str) -> None:
    place = root
    for part in parts[:-1]:
        place = place.setdefault(part or str(len(place)), {})
    place[parts[-1] or str(len(place))] = value


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {name: _listed(each) for name, each in value.items()}
    return list(inner.values()) if inner and all(name.isdigit() for name in inner) else inner


# -------------------------------------------------------------------------------------------------------------------- SDK types


_ELSEWHERE: dict[str, Any] = {"CardResource": stripe.Card, "UntypedStripeObject": UntypedStripeObject}


class SdkNames(dict[str, Any]):
    """Where the annotations of the SDK find the names that it only imports for type checkers."""

    def __missing__(self, name: str) -> Any:
        for place in (stripe, stripe.billing, stripe.test_helpers, stripe.params, typing):
            if hasattr(place, name):
                return getattr(place, name)
        if name in _ELSEWHERE:
            return _ELSEWHERE[name]
        raise KeyError(name)


@cache
def fields_of(params: type) -> dict[str, Any]:
    """The parameters of a request and their types; options of the call itself left out."""
    options = typing.get_type_hints(stripe.RequestOptions, localns=SdkNames())
    hints = typing.get_type_hints(params, localns=SdkNames())
    return {name: hint for name, hint in hints.items() if name not in options}


def parsed(params: type, given: dict[str, Any], takes: frozenset[str]) -> dict[str, Any]:
    """The parameters with their values as Python has them; `Refused` for the first that can't be."""
    found = _typed_dict(params, given, "")
    ignored = sorted(found.keys() - takes - {"expand"})
    if ignored:
        raise not_here(f"parameter {ignored[0]}")
    _check_metadata(found.get("metadata") or {})
    return found


def _typed_dict(params: type, given: Any, path: str) -> dict[str, Any]:
    fields = fields_of(params)
    if not isinstance(given, dict):
        raise invalid(f"Invalid object: {given!r}", param=path)
    for name in given:
        if name not in fields:
            raise invalid(
                f"Received unknown parameter: {_below(path, name)}", code="parameter_unknown", param=_below(path, name)
            )
    needed: frozenset[str] = getattr(params, "__required_keys__", frozenset())
    for name in sorted(needed & fields.keys() - given.keys()):
        raise required(_below(path, name))
    return {name: _value(fields[name], value, _below(path, name)) for name, value in given.items()}


def _below(path: str, name: str) -> str:
    return f"{path}[{name}]" if path else name


def _value(hint: Any, given: Any, path: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        return _one_of(args, given, path)
    if origin is Literal:
        return _choice(args, given, path)
    if origin is list:
        if not isinstance(given, list):
            raise invalid("Invalid array", param=path)
        return [_value(args[0], each, f"{path}[{index}]") for index, each in enumerate(given)]
    if is_typeddict(hint):
        return _typed_dict(hint, given, path)
    return _map(given, path) if origin in MAPS or hint in MAPS else _plain(hint, given, path)


def _map(given: Any, path: str) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise invalid("Invalid object: metadata is a set of key-value pairs", param=path)
    return given


def _one_of(hints: tuple[Any, ...], given: Any, path: str) -> Any:
    """Choices come with `str` in the SDK, so that newer ones are allowed; Stripe itself refuses those."""
    choices = [choice for hint in hints if get_origin(hint) is Literal for choice in get_args(hint)]
    if given == "" and "" in choices:
        return {} if any(get_origin(hint) in MAPS for hint in hints) else None
    rest = [
        hint
        for hint in hints
        if get_origin(hint) is not Literal and not (choices and hint is str and set(choices) != {""})
    ]
    for hint in rest:
        try:
            return _value(hint, given, path)
        except Refused as refused:
            if refused.code == "parameter_unknown" or (hint is rest[-1] and not choices):
                raise
    return _choice(tuple(choices), given, path)


def _choice(choices: tuple[Any, ...], given: Any, path: str) -> Any:
    if given in choices:
        return given
    raise invalid(f"Invalid {path}: must be one of {', '.join(map(str, choices))}", param=path)


def _plain(hint: Any, given: Any, path: str) -> Any:
    if not isinstance(given, str):
        raise invalid(f"Invalid string: {given!r}", param=path)
    try:
        return _PLAIN[hint](given)
    except KeyError:
        if isinstance(hint, type) and issubclass(hint, StripeObject):
            raise invalid(f"Invalid object: {given!r}", param=path) from None
        raise
    except (ValueError, InvalidOperation):
        code = "parameter_invalid_integer" if hint is int else None
        raise invalid(f"Invalid {getattr(hint, '__name__', hint)}: {given}", code=code, param=path) from None


def _bool(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(text)
    return text == "true"


_PLAIN: dict[Any, Any] = {int: int, bool: _bool, str: str, Decimal: Decimal, float: Decimal}


def _check_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > METADATA_KEYS_MAX:
        raise invalid(f"You can only have up to {METADATA_KEYS_MAX} metadata keys.", param="metadata")
    for key, value in metadata.items():
        if len(key) > METADATA_KEY_MAX or len(value) > METADATA_VALUE_MAX:
            raise invalid(
                f"Metadata keys have up to {METADATA_KEY_MAX} characters and values up to {METADATA_VALUE_MAX}: {key}",
                param=f"metadata[{key}]",
            )
