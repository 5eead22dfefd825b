"""The program, on a migrated database of the test's own."""

from pathlib import Path

import pytest

from tests.cli.commands import Program


@pytest.fixture
def meterbook(database_url: str, tmp_path: Path) -> Program:
    return Program(database_url, tmp_path)
