from datetime import UTC, datetime


def utc(at: datetime) -> datetime:
    """The same instant in UTC; a naive time names no instant and is refused (`ValueError`).

    Subtracting two times of one zone ignores its clock changes, so whatever measures time starts here.
    """
    if at.utcoffset() is None:
        raise ValueError(f"{at!r} has no time zone; pass an aware datetime")
    return at.astimezone(UTC)
