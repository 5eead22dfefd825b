"""The attribution token: small, checked, of known shape."""

import json
from base64 import urlsafe_b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterbook.core.attribution import Attribution

NAMES = st.text(min_size=1, max_size=40)
IDS = st.integers(min_value=1, max_value=2**63 - 1)


@given(NAMES, st.none() | NAMES, NAMES, IDS, IDS)
def test_a_token_says_what_was_resolved(
    actor: str, workspace: str | None, entity: str, entity_id: int, period: int
) -> None:
    """There and back, whatever the names; printable ASCII that fits a header."""
    attribution = Attribution(actor, workspace, f"user:{entity}", entity_id, period)
    assert Attribution.from_token(attribution.token) == attribution
    assert attribution.token.isascii()
    assert attribution.token.isprintable()


@given(st.text())
def test_any_text_is_no_token(text: str) -> None:
    """`ValueError`, and nothing else."""
    with pytest.raises(ValueError, match=r"."):
        Attribution.from_token(text)


@pytest.mark.parametrize(
    "said",
    [
        7,
        [],
        ["u"],
        ["u", None, "user:u", 1, 2, 3],
        [7, None, "user:u", 1, 2],
        ["u", 7, "user:u", 1, 2],
        ["u", None, None, 1, 2],
        ["u", None, "user:u", "1", 2],
        ["u", None, "user:u", 1, "2}"],
        ["u", None, "user:u", True, 2],
        ["u", None, "user:u", 1, 2**63],
        ["u", None, "user:u", 1.0, 2],
        {"actor": "u", "workspace": None, "entity": "user:u", "entity_id": 1, "period": 2},
    ],
)
def test_a_token_of_another_shape_is_refused(said: object) -> None:
    """Also with a checksum that fits: it is no secret."""
    body = urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    token = f"mba1.{body}.{sha256(body.encode()).hexdigest()[:8]}"
    with pytest.raises(ValueError, match=r"."):
        Attribution.from_token(token)
