"""Mappings of legacy counters (BEHAVIOUR §13). `origin.toml`, shipped, is the example to copy: simstudioai/sim before May 2026."""

from importlib import resources
from pathlib import Path

from meterbook.core.legacy_mapping import LegacyMapping, parse_mapping
from meterbook.errors import InvalidMapping


def load_mapping(path: Path | None = None) -> LegacyMapping:
    """The file's mapping, or the shipped one. Raises `InvalidMapping`, also for a file that can't be read."""
    source = resources.files(__name__) / "origin.toml" if path is None else path
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidMapping([f"{source} can't be read: {error}"]) from error
    return parse_mapping(text)
