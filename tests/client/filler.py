"""A process that records until it is killed: says what it is about to record, and what was acknowledged, a line each.

Arguments: the server's address, its key, a folder, an actor, and a name that no earlier process of this actor had.
"""

import sys
import threading
from collections.abc import Callable

from meterbook.client import Client

THREADS = 4


def main(url: str, key: str, folder: str, actor: str, name: str) -> None:
    lock = threading.Lock()

    def say(what: str, event_key: str) -> None:
        with lock:
            print(what, event_key, flush=True)  # noqa: T201  its parent reads it

    with Client(url, key, spool=folder, deadline_s=0.05, timeout_s=1, on_refused=lambda _: None) as client:

        def work(thread: int, call: Callable[..., object]) -> None:
            number = 0
            while True:
                number += 1
                event_key = f"{actor}:{name}:{thread}:{number}"
                say("tried", event_key)
                call(actor, source="workflow", description="gpt-4o", amount="0.01", event_key=event_key)
                say("acknowledged", event_key)

        calls = (client.record, client.enqueue) * (THREADS // 2)
        threads = [threading.Thread(target=work, args=each) for each in enumerate(calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
