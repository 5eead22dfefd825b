"""The event key of an imported row."""

from hashlib import sha256

from meterbook.importing.refusal import ImportRefused

NAME_LENGTH_MAX = 200
DISTINCT_ROWS_MAX = 10_000_000


class RowKeys:
    """Names each row by what it says: ``import:<name>:<sha256 of the raw row>:<n>``, n counting equal rows from 1.

    So the order of rows does not matter, a file that grew adds only its new rows, and equal rows count each. To
    number equal rows it remembers 16 bytes of the digest of every distinct row: about 150 bytes of memory a row,
    and no more rows than DISTINCT_ROWS_MAX in one import.
    """

    def __init__(self, name: str) -> None:
        if not 0 < len(name) <= NAME_LENGTH_MAX:
            raise ImportRefused(f"an import's name has 1 to {NAME_LENGTH_MAX} characters; give one with --name")
        self._prefix = f"import:{name}:"
        self._seen: dict[bytes, int] = {}

    def next_key(self, raw: bytes) -> str:
        """The key of the next row with these bytes (without line end)."""
        digest = sha256(raw)
        identity = digest.digest()[:16]
        n = self._seen.get(identity, 0) + 1
        if n == 1 and len(self._seen) >= DISTINCT_ROWS_MAX:
            raise ImportRefused(
                f"one import takes at most {DISTINCT_ROWS_MAX:,} distinct rows; "
                "what was read so far has landed. Split the file and import the parts under names of their own"
            )
        self._seen[identity] = n
        return f"{self._prefix}{digest.hexdigest()}:{n}"
