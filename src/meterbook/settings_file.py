"""Which TOML file says what a server and the commands are told. Standard library only: commands need no extra."""

import os
import tomllib
from pathlib import Path
from typing import Any

from meterbook.errors import InvalidSettings

FILE = Path("meterbook.toml")
FILE_VARIABLE = "METERBOOK_CONFIG"


def settings_file() -> Path:
    """The one that METERBOOK_CONFIG names, which must be there, or meterbook.toml of the working directory, which need not."""
    named = os.environ.get(FILE_VARIABLE)
    if named is not None and not Path(named).is_file():
        raise InvalidSettings([f"{FILE_VARIABLE}: there is no file {named}"])
    return FILE if named is None else Path(named)


def read_file() -> dict[str, Any]:
    """Empty where there is none. Raises `InvalidSettings`."""
    file = settings_file()
    if not file.is_file():
        return {}
    try:
        return tomllib.loads(file.read_text())
    except ValueError as wrong:
        raise InvalidSettings([f"{file}: {wrong}"]) from None
