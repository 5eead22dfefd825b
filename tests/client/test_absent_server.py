"""No server at all: nobody listens."""

from typing import Any

import pytest

from meterbook.client import AsyncClient, Refusal
from meterbook.errors import InvalidUsage, Unreachable
from tests.client.unruly import nobody

SAID: dict[str, Any] = {"source": "workflow", "description": "gpt-4o"}


async def test_without_a_spool_an_absent_server_is_raised() -> None:
    """With the keys, so that the caller may try again; nothing is pretended."""
    with nobody() as url:
        async with AsyncClient(url, "mb_x", deadline_s=0.3) as client:
            with pytest.raises(Unreachable) as refused:
                await client.record("ada", amount="1", **SAID)
    assert refused.value.retryable
    assert len(refused.value.event_keys) == 1


@pytest.mark.parametrize(
    ("url", "key"), [("localhost:8080", "k"), ("ftp://x", "k"), ("http://x", ""), ("http://x", "ü")]
)
async def test_an_address_that_is_none_is_told(url: str, key: str) -> None:
    """When the client is opened, by the name of the argument."""
    with pytest.raises(InvalidUsage):
        async with AsyncClient(url, key):
            pass


async def _unheard(refusal: Refusal) -> None:
    pytest.fail(f"awaited: {refusal}")


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout_s": 0},
        {"connect_timeout_s": -1},
        {"check_deadline_s": float("nan")},
        {"batch_entries_max": 0},
        {"waiting_entries_max": 2.5},
        {"on_refused": _unheard},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_that_cant_be_are_told(settings: dict[str, Any]) -> None:
    """When the client is made; a callback that nobody would await is one of them."""
    with pytest.raises(InvalidUsage, match=next(iter(settings))):
        AsyncClient("http://meterbook.test", "k", **settings)
