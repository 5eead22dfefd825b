"""Catalogs of plans. `origin.toml`, shipped, is the example to copy and the one used when none is named."""

from importlib import resources
from pathlib import Path

from meterbook.core.catalog_text import parse_catalog
from meterbook.core.plans import Catalog
from meterbook.errors import InvalidCatalog


def load_catalog(path: Path | None = None) -> Catalog:
    """The file's catalog, or the shipped one. Raises `InvalidCatalog`, also for a file that can't be read."""
    source = resources.files(__name__) / "origin.toml" if path is None else path
    try:
        return parse_catalog(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidCatalog((f"{source} can't be read: {error}",)) from error
