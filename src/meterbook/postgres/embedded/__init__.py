"""PostgreSQL without an installation: one server a folder, shared by the processes that use the folder.

`with embedded(folder) as engine: engine.url`. The server listens on a unix socket that its own user alone can
reach, starts with the first process and stops with the last one. `binaries` finds the programs, `place` decides
where a folder's data lives and whose they are, `server` starts and stops, `engine` counts the users.
May import meterbook.errors and nothing else of the project.
"""

from meterbook.postgres.embedded.engine import Embedded, embedded, erase

__all__ = ["Embedded", "embedded", "erase"]
