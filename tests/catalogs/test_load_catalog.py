from decimal import Decimal
from pathlib import Path

import pytest

from meterbook.catalogs import load_catalog
from meterbook.errors import InvalidCatalog


def test_the_shipped_catalog_is_the_table_of_the_origin() -> None:
    """§7, price by price; what a plan allows is proven in core/test_plans.py."""
    prices = {plan.code: plan.price for plan in load_catalog().plans}
    assert prices == {
        "free": Decimal(0),
        "pro": Decimal(20),
        "pro_6000": Decimal(25),
        "pro_25000": Decimal(100),
        "team": Decimal(40),
        "team_6000": Decimal(25),
        "team_25000": Decimal(100),
        "enterprise": None,
    }


def test_a_catalog_of_ones_own_is_read_from_its_file(tmp_path: Path) -> None:
    """A path replaces the shipped catalog; nothing of the two is mixed."""
    path = tmp_path / "ours.toml"
    path.write_text('[plans.free]\nprice = "0"\nincluded = "0"\nrefresh = "0"\nrank = 0\nlimit = "1"\n')
    assert [plan.code for plan in load_catalog(path).plans] == ["free"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_an_invalid_catalog(tmp_path: Path, content: bytes | None) -> None:
    """Missing or not UTF-8: an error that names the file, never the shipped catalog instead."""
    path = tmp_path / "ours.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidCatalog, match=r"ours\.toml"):
        load_catalog(path)
