"""Waiting and working beside the callers, for threads. Its twin is waiting_asyncio."""

from collections.abc import Callable
from threading import Event, Thread
from typing import ParamSpec, TypeVar

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")
Work = Callable[[], None]

INTERRUPTED = KeyboardInterrupt
"""What ends a call that waits, though nothing is wrong with it."""


def uninterrupted(work: Callable[Asked, Answer], *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
    return work(*args, **kwargs)


def in_thread(call: Callable[Asked, Answer], *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
    return call(*args, **kwargs)


class Signal:
    """Set by one side, waited for by the other."""

    def __init__(self) -> None:
        self._event = Event()

    def set(self) -> None:
        self._event.set()

    def clear(self) -> None:
        self._event.clear()

    def wait(self, seconds: float) -> None:
        """Until it is set, or so long."""
        self._event.wait(max(0.0, seconds))


class Background:
    """Work beside the callers. What it raises is its starter's: `raise_failure`."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._thread: Thread | None = None
        self._failure: BaseException | None = None

    def start(self) -> None:
        self._thread = Thread(target=self._run, name="meterbook-client", daemon=True)
        self._thread.start()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  told by raise_failure
            self._failure = error
