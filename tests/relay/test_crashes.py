"""S60: the relay's process is killed at each call to Stripe, before its effect and after: the next delivers, and there is one invoice."""

import signal
from pathlib import Path

import pytest

from tests.cli.commands import Program
from tests.cli.forked import Forked
from tests.ledger import query
from tests.relay.shop import Shop
from tests.relay.test_invoices import PAID, STEPS
from tests.stripe_server.faults import Kind
from tests.stripe_server.server import API_KEY, StripeServer

PATIENCE_S = 60
AN_HOUR_LATER = (
    "update meterbook.outbox_delivery set due_at = due_at - interval '1 hour' where state in ('due', 'leased')"
)
ATTEMPTS_MAX = 5


def relay(program: Program, server: StripeServer) -> Forked:
    """`meterbook relay`, in a process of its own."""
    environment = program.environment({"METERBOOK_STRIPE_API_KEY": API_KEY, "METERBOOK_STRIPE_API_BASE": server.url})
    return Forked(["relay"], program.directory, environment)


def kill_at(program: Program, server: StripeServer, kind: Kind, step: tuple[str, str]) -> None:
    """-9, when the call has arrived that is not answered."""
    held = server.fails(kind, *step)
    process = relay(program, server)
    assert held.arrived.wait(PATIENCE_S), "the relay never came to this call"
    process.kill()
    code, *_ = process.communicate(PATIENCE_S)
    assert code == -signal.SIGKILL
    server.wait_until_idle()
    server.script.clear()


async def deliver(shop: Shop, program: Program, server: StripeServer, database_url: str) -> bytes:
    """By further processes, an hour apart; gives what they said."""
    said = b""
    for _ in range(ATTEMPTS_MAX):
        query(database_url, AN_HOUR_LATER)
        _, out, err = relay(program, server).communicate(PATIENCE_S)
        said += out + err
        if (await shop.delivery()).state == "delivered":
            break
    return said


@pytest.mark.parametrize("step", STEPS)
async def test_s60_killed_at_each_call(
    shop: Shop, database_url: str, tmp_path: Path, stripe_server: StripeServer, step: str
) -> None:
    """Its lease runs out, another takes over: exactly one invoice of the right cents, paid once."""
    program = Program(database_url, tmp_path)
    kinds: tuple[Kind, ...] = ("timeout_before", "timeout_after")
    for number, kind in enumerate(kinds):
        customer = await shop.charge(f"u{number}", dollars=150)
        kill_at(program, stripe_server, kind, STEPS[step])
        assert (await shop.delivery()).state == "leased"
        said = await deliver(shop, program, stripe_server, database_url)
        assert shop.invoices(customer) == [PAID], (kind, said)
