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

Pipe = tuple["Connection[bytes, bytes]", "Connection[bytes, bytes]"]


def run(
    arguments: Sequence[str], directory: Path, environment: dict[str, str], given: bytes, timeout_s: float
) -> tuple[int, bytes, bytes]:
    """Exit code, output and errors of ``meterbook ARGUMENTS``; killed when it takes longer."""
    (stdin, feed), (out, into_out), (err, into_err) = pipes = [FORKS.Pipe(duplex=False) for _ in range(3)]
    process = FORKS.Process(target=_program, args=(arguments, directory, environment, stdin, into_out, into_err))
    process.start()
    for end in (stdin, into_out, into_err):
        end.close()
    too_long = Timer(timeout_s, process.kill)
    too_long.start()
    with ThreadPoolExecutor() as threads:
        fed, *read = threads.submit(_feed, feed, given), threads.submit(_drain, out), threads.submit(_drain, err)
        said = [each.result() for each in read]
        fed.result()
    process.join()
    too_long.cancel()
    for each in (end for pipe in pipes for end in pipe):
        each.close()
    code = process.exitcode
    assert code is not None
    process.close()
    return code, said[0], said[1]


def _feed(end: "Connection[bytes, bytes]", given: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(os.dup(end.fileno()), "wb") as stream:
        end.close()
        stream.write(given)


def _drain(end: "Connection[bytes, bytes]") -> bytes:
    with os.fdopen(os.dup(end.fileno()), "rb") as stream:
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
