"""One month of a made-up AI platform, played into a real ledger: what ``make run`` shows.

Synthetic and seeded: nobody's data. Prices are the real ones of ``genai-prices``.

``cast``      who is there: organizations, people, plans, models
``workload``  what happens, step by step, from the seed
``play``      the steps, played against a ``Book``, and what the ledger says afterwards
"""
