"""No server at all: nobody listens."""

import subprocess
import sys
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
    ("url", "key"),
    [
        ("localhost:8080", "k"),
        ("ftp://x", "k"),
        ("http://x", ""),
        ("http://x", "ü"),
        ("http://ada:secret@x", "k"),
        ("http://x?key=secret", "k"),
        ("http://x#secret", "k"),
    ],
)
async def test_an_address_that_is_none_is_told(url: str, key: str) -> None:
    """When the client is opened, by the name of the argument; a secret in it would be in every message of an absent server."""
    with pytest.raises(InvalidUsage) as refused:
        async with AsyncClient(url, key):
            pass
    assert {problem.field for problem in refused.value.problems} <= {"url", "key"}
    assert "secret" not in str(refused.value)


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
        {"waiting_bytes_max": 0},
        {"deadline_s": float("nan")},
        {"close_s": -1},
        {"batch_wait_s": "0.1"},
        {"on_refused": _unheard},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_that_cant_be_are_told(settings: dict[str, Any]) -> None:
    """When the client is made; a callback that nobody would await is one of them."""
    with pytest.raises(InvalidUsage, match=next(iter(settings))):
        AsyncClient("http://meterbook.test", "k", **settings)


def test_what_a_client_that_nobody_closed_had_in_memory_is_logged() -> None:
    """The process ends without a word otherwise, and nobody is charged."""
    with nobody() as url:
        program = (
            "import logging; from meterbook.client import Client; logging.basicConfig();"
            f"client = Client({url!r}, 'mb_x'); client.open();"
            "client.enqueue('ada', source='workflow', description='gpt-4o', amount='0.25', event_key='run_1')"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "never closed, and 1 calls are lost" in done.stderr
    assert "run_1" in done.stderr
    assert "mb_x" not in done.stderr
