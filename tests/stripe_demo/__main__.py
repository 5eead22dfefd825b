"""`python -m tests.stripe_demo`: plays the cycle in an embedded ledger of its own, which is gone afterwards."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.stripe_demo.cycle import play_cycle


def main() -> None:
    with TemporaryDirectory(prefix="meterbook-stripe-demo-") as folder:
        asyncio.run(play_cycle(None, Path(folder), print))


if __name__ == "__main__":
    main()
