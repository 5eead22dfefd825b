"""What an application embeds to talk to a meterbook server over HTTP: `AsyncClient`, and `Client` without async.

Start with `client.py`; the guide is docs/guides/client.md. Needs the extra `meterbook[client]`. May import the core and the errors, and
nothing of the server: no database driver comes along.
"""

from meterbook.client.client import AsyncClient
from meterbook.client.holding import AsyncHold
from meterbook.client.results import Receipt, Refusal, SettleReceipt, Spooled, UsageFigures
from meterbook.core.admission import Admission
from meterbook.core.entries import Usage
from meterbook.sync.client.client import Client
from meterbook.sync.client.holding import Hold

__all__ = [
    "Admission",
    "AsyncClient",
    "AsyncHold",
    "Client",
    "Hold",
    "Receipt",
    "Refusal",
    "SettleReceipt",
    "Spooled",
    "Usage",
    "UsageFigures",
]
