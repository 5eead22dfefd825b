"""For applications' libraries, each optional: a gate for FastAPI, a callback for LiteLLM, spans for OpenTelemetry.

Nothing here is imported by the ledger: who wants one imports its module. They may use `book`, `problems`, `pricing` and what lies below,
and one another's nothing but `ledgers`, which says what of a Book or a client they need. SQLAlchemy's and Django's connections need no
module: `conn` takes them as they are (`postgres/underlying_asyncio.py`).
"""
