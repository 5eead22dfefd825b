"""The Python face: `meterbook.open` gives a `Book`. The door that owns connections and commits; other doors go through it.

`book` is the promised API; `group_commit_asyncio` and `group_commit_threads` let callers share a commit (`groups` is what both know);
`lanes_asyncio` and `lanes_threads` do the same for `holding`: an entity's holds, and all that end.
The synchronous `meterbook.sync` is generated from `book`, operations and postgres.
"""

from meterbook.book.book import Book, open

__all__ = ["Book", "open"]
