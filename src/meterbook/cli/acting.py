"""What a command changes is noted before it is done, with who did it, as over HTTP and in the console."""

import getpass
from contextlib import AbstractAsyncContextManager

from meterbook.book import Book


def by_whom() -> str:
    """The user of the machine: a command has no key."""
    return f"command line ({getpass.getuser()})"


def noted(book: Book, act: str, subject: str, **said: object) -> AbstractAsyncContextManager[None]:
    """What was not said is left out."""
    return book.act(by_whom(), act, subject, {name: value for name, value in said.items() if value is not None})
