"""Writes docs/reference/openapi.json, the document that a server serves at /v1/openapi.json."""

import json
from pathlib import Path

from meterbook.http.openapi import make_document
from meterbook.http.routes import DESCRIBED

FILE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "openapi.json"

if __name__ == "__main__":
    FILE.write_text(json.dumps(make_document(DESCRIBED), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
