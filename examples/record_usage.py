"""Recording once: a retry is not a duplicate, and another amount under the same key is refused."""

import asyncio
from dataclasses import replace

import meterbook


async def main() -> None:
    async with meterbook.open() as book:
        charge = meterbook.Usage("user_42", "workflow", "gpt-4o", "0.0123", event_key="run_9:gpt-4o:0")
        first = await book.record_many([charge])
        print(f"first call: {first.inserted} inserted, {first.replayed} replayed")

        again = await book.record_many([charge])
        print(f"retry: {again.inserted} inserted, {again.replayed} replayed, the same entry: {again.entries[0].id}")

        try:
            await book.record_many([replace(charge, amount="99")])
        except meterbook.KeyConflict as refused:
            print(f"other amount: {refused}")

        usage = await book.usage("user:user_42")
        print(f"user_42 used {usage.total} of {usage.limit}")


asyncio.run(main())
