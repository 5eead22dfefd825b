"""The program in a process of its own, forked from one that has imported it: a command costs its work, without half a second of imports."""

import io
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Timer

from meterbook.cli import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])


class Forked:
    """``meterbook ARGUMENTS``, begun; what it is `given` is its standard input."""

    def __init__(
        self, arguments: Sequence[str], directory: Path, environment: dict[str, str], given: bytes = b""
    ) -> None:
        (stdin, feed), (out, into_out), (err, into_err) = [FORKS.Pipe(duplex=False) for _ in range(3)]
        self._process = FORKS.Process(
            target=_program, args=(arguments, directory, environment, stdin, into_out, into_err)
        )
        self._process.start()
        for end in (stdin, into_out, into_err):
            end.close()
        threads = ThreadPoolExecutor(3)
        self._said = [threads.submit(_drain, out), threads.submit(_drain, err)]
        threads.submit(_feed, feed, given)
        threads.shutdown(wait=False)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout_s: float) -> tuple[int, bytes, bytes]:
        """Exit code (below 0: minus the signal), output and errors; killed when it takes longer."""
        too_long = Timer(timeout_s, self.kill)
        too_long.start()
        out, err = (each.result() for each in self._said)
        self._process.join()
        too_long.cancel()
        code = self._process.exitcode
        assert code is not None
        self._process.close()
        return code, out, err


def _feed(end: "Connection[bytes, bytes]", given: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(os.dup(end.fileno()), "wb") as stream:
        end.close()
        stream.write(given)


def _drain(end: "Connection[bytes, bytes]") -> bytes:
    with os.fdopen(os.dup(end.fileno()), "rb") as stream:
        end.close()
        return stream.read()


def _program(
    arguments: Sequence[str], directory: Path, environment: dict[str, str], *standard: "Connection[bytes, bytes]"
) -> None:
    for number, end in enumerate(standard):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdin, sys.stdout, sys.stderr = (
        io.TextIOWrapper(os.fdopen(number, mode, closefd=False), encoding="utf-8", line_buffering=number == 2)
        for number, mode in enumerate(("rb", "wb", "wb"))
    )
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(directory)
    sys.argv = ["meterbook", *arguments]
    main()
