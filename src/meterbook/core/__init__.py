"""The rules, pure: no clock, no I/O, no randomness, no environment. Imports the standard library and meterbook.errors.

Start with `money` (exact amounts, cents) and `entries` (what may be recorded, its key and its fingerprint); `refresh`, `overage`,
`limits` compute figures from the terms that the database gives; `derivation` says why a figure is what it is.
Who pays and which period an entry lands in are facts of one snapshot and live in SQL: postgres/migrations/0002_attribution.sql.
"""
