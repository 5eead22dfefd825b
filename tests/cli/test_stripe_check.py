"""``stripe check``: an account in test mode billed once, the way the relay does, and nothing left behind."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from meterbook.errors import StripeRefused
from meterbook.stripe.gateway import API_VERSION, CustomerMade, StripeAccount, StripeGateway
from meterbook.stripe.rehearsal import rehearse
from tests.cli.commands import Done, Program
from tests.stripe_server.server import API_KEY, StripeServer

STEPS = [
    "customer",
    *["create", "again", "look up", "item", "finalize"],
    "pay",
    *["create", "again", "look up", "item", "finalize"],
]
STEPS += ["void", "clean up"]


@pytest.fixture
def stripe_server() -> Iterator[StripeServer]:
    """By the present time, as the command is."""
    with StripeServer(datetime.now(UTC)) as server:
        yield server


def check(server: StripeServer, tmp_path: Path, *arguments: str, key: str = API_KEY) -> Done:
    """By the address in METERBOOK_STRIPE_API_BASE."""
    program = Program(None, tmp_path)
    return program("stripe", "check", "--api-key", key, *arguments, METERBOOK_STRIPE_API_BASE=server.url)


def left(server: StripeServer) -> list[tuple[str, int]]:
    """Invoices that are not over, and customers."""
    open_ones = [each for each in server.things("invoice") if each["status"] not in ("paid", "void")]
    return [(each["status"], each["subtotal"]) for each in open_ones] + [
        ("customer", 0) for _ in server.things("customer")
    ]


def test_it_bills_voids_and_cleans_up(stripe_server: StripeServer, tmp_path: Path) -> None:
    """Each step is printed; one invoice is paid and one void, of 1.23 each; the customer is gone, and no ledger was made."""
    done = check(stripe_server, tmp_path)
    assert (done.code, [line[:9].strip() for line in done.out.splitlines()[:-1]]) == (0, STEPS)
    assert done.out.splitlines()[-1] == f"Stripe takes what it will be sent (API {API_VERSION})"
    found = [(each["status"], each["subtotal"], each["amount_paid"]) for each in stripe_server.things("invoice")]
    assert found == [("paid", 123, 123), ("void", 123, 0)]
    assert left(stripe_server) == []
    assert list(tmp_path.iterdir()) == []


def test_for_a_script(stripe_server: StripeServer, tmp_path: Path) -> None:
    """The steps, no refusal, and the version that was spoken."""
    said = check(stripe_server, tmp_path, "--json").data
    assert ([each["step"] for each in said["steps"]], said["refused"], said["api_version"]) == (
        STEPS,
        None,
        API_VERSION,
    )


@pytest.mark.parametrize("key", ["sk_live_" + "x" * 24, "rk_live_" + "x" * 24, "pk_test_1", "whsec_1", ""])
def test_a_key_that_is_not_of_test_mode_is_refused(stripe_server: StripeServer, tmp_path: Path, key: str) -> None:
    """Exit code 2; the key is not repeated, and nothing is sent."""
    done = check(stripe_server, tmp_path, key=key)
    assert (done.code, done.out, stripe_server.requests) == (2, "", [])
    assert "no key of test mode" in " ".join(done.err.replace("│", " ").split())
    assert not key or key not in done.err or len(key) < 10


FAULTS: list[tuple[Any, str, str, int]] = [
    ("error_500_before", "POST", "/v1/customers", 1),
    ("error_500_after", "POST", "/v1/invoices", 1),
    ("unavailable_503", "GET", "/v1/invoices", 1),
    ("error_500_before", "POST", "/v1/invoiceitems", 1),
    ("rate_limit_429", "POST", "/v1/invoices/*/finalize", 1),
    ("declined", "POST", "/v1/invoices/*/pay", 1),
    ("error_500_before", "POST", "/v1/invoices/*/finalize", 2),
    ("reset_before", "POST", "/v1/invoices/*/void", 1),
]


@pytest.mark.parametrize(("kind", "method", "path", "nth"), FAULTS)
def test_a_step_that_fails_leaves_nothing_to_be_collected(
    stripe_server: StripeServer, tmp_path: Path, kind: Any, method: str, path: str, nth: int
) -> None:
    """Exit code 1 and why; what was made up to then is deleted or voided."""
    stripe_server.fails(kind, method, path, nth=nth)
    done = check(stripe_server, tmp_path)
    assert (done.code, "\nrefused: " in f"\n{done.out}") == (1, True)
    assert left(stripe_server) == []


def test_what_can_not_be_cleaned_up_is_named(stripe_server: StripeServer, tmp_path: Path) -> None:
    """So that a person can, in the dashboard."""
    stripe_server.fails("declined", "POST", "/v1/invoices/*/pay")
    stripe_server.fails("unavailable_503", "POST", "/v1/invoices/*/void", times=None)
    stripe_server.fails("unavailable_503", "DELETE", "*", times=None)
    done = check(stripe_server, tmp_path)
    (invoice,), (customer,) = stripe_server.things("invoice"), stripe_server.things("customer")
    assert done.code == 1
    assert f"{invoice['id']} is left, void it in the dashboard" in done.out
    assert f"{customer['id']} is left, delete it in the dashboard" in done.out


def test_an_account_that_answers_in_live_mode_is_not_billed(stripe_server: StripeServer) -> None:
    """Whatever its key looks like: the customer is deleted, and no invoice is made."""

    class Live(StripeGateway):
        def create_customer(self, name: str, payment_method: str, key: str) -> CustomerMade:
            return replace(super().create_customer(name, payment_method, key), is_live=True)

    with pytest.raises(StripeRefused, match="live mode"):
        rehearse(Live(StripeAccount(API_KEY, api_base=stripe_server.url)), "USD", lambda *_: None)
    assert (stripe_server.things("invoice"), left(stripe_server)) == ([], [])


def test_a_clock_that_is_hours_off_is_found_out(tmp_path: Path) -> None:
    """The relay looks up what it made by when it made it: that has to work before money depends on it."""
    with StripeServer(datetime.now(UTC) - timedelta(hours=3)) as behind:
        done = check(behind, tmp_path)
        assert (done.code, "the list does not show the invoice" in done.out, left(behind)) == (1, True, [])
