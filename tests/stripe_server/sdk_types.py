"""Whether an object is what the SDK's types say it is: each field known, none missing, each of its type, all the way down."""

import types
import typing
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import stripe
from stripe import ListObject, StripeObject

from tests.stripe_server.parameters import MAPS, SdkNames
from tests.stripe_server.world import Thing

SDK_CLASSES: dict[str, type] = {
    "charge": stripe.Charge,
    "customer": stripe.Customer,
    "dispute": stripe.Dispute,
    "event": stripe.Event,
    "invoice": stripe.Invoice,
    "invoice_payment": stripe.InvoicePayment,
    "invoiceitem": stripe.InvoiceItem,
    "line_item": stripe.InvoiceLineItem,
    "payment_intent": stripe.PaymentIntent,
    "payment_method": stripe.PaymentMethod,
    "plan": stripe.Plan,
    "price": stripe.Price,
    "product": stripe.Product,
    "subscription": stripe.Subscription,
    "subscription_item": stripe.SubscriptionItem,
    "test_helpers.test_clock": stripe.test_helpers.TestClock,
}
_OF_THE_SDK_ITSELF = set(StripeObject.__annotations__)


def differences(thing: Thing) -> list[str]:
    """What is not as the SDK has it, by path; nothing if all is well."""
    return list(_of_object(SDK_CLASSES[thing["object"]], thing, thing["object"]))


@cache
def fields_of(sdk_class: type) -> dict[str, Any]:
    hints = typing.get_type_hints(sdk_class, localns=SdkNames())
    inherited = typing.get_type_hints(StripeObject, localns=SdkNames()).keys() | _OF_THE_SDK_ITSELF
    constants = {name for name, hint in hints.items() if get_origin(hint) is typing.ClassVar}
    return {name: hint for name, hint in hints.items() if name not in inherited | constants}


def _of_object(sdk_class: type, thing: Any, path: str) -> Iterator[str]:
    if not isinstance(thing, dict):
        yield f"{path}: {thing!r} is no {sdk_class.__name__}"
        return
    fields = fields_of(sdk_class)
    yield from (f"{path}.{name}: unknown to {sdk_class.__name__}" for name in thing if name not in fields)
    yield from (
        f"{path}.{name}: missing" for name, hint in fields.items() if name not in thing and not _may_be_none(hint)
    )
    for name, value in thing.items():
        if name in fields:
            yield from _of_value(fields[name], value, f"{path}.{name}")


def _may_be_none(hint: Any) -> bool:
    return hint is Any or type(None) in get_args(hint)


def _of_value(hint: Any, value: Any, path: str) -> Iterator[str]:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any or hint in MAPS or origin in MAPS:
        return
    if origin in {Union, types.UnionType}:
        yield from _of_union(args, value, path)
    elif origin is Literal:
        yield from () if value in args else (f"{path}: {value!r} is none of {args}",)
    elif origin is list:
        yield from _of_list(args[0], value, path)
    elif origin is ListObject:
        yield from _of_list(args[0], value.get("data"), f"{path}.data")
    elif isinstance(hint, type) and issubclass(hint, StripeObject):
        yield from _of_object(hint, value, path)
    elif not _is_plain(hint, value):
        yield f"{path}: {value!r} is no {hint}"


def _of_list(hint: Any, values: Any, path: str) -> Iterator[str]:
    if not isinstance(values, list):
        yield f"{path}: {values!r} is no list"
        return
    for index, value in enumerate(values):
        yield from _of_value(hint, value, f"{path}[{index}]")


def _of_union(hints: tuple[Any, ...], value: Any, path: str) -> Iterator[str]:
    """As one of the alternatives; a choice that newer versions may add to is held against the choices of this one."""
    choices = [hint for hint in hints if get_origin(hint) is Literal]
    rest = [hint for hint in hints if not (choices and hint is str) and (hint is type(None)) == (value is None)]
    found = [list(_of_value(hint, value, path)) for hint in rest]
    if all(found):
        yield from min(found, key=len, default=[f"{path}: {value!r} is none of {hints}"])


def _is_plain(hint: Any, value: Any) -> bool:
    if hint is Decimal:
        return isinstance(value, str)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
