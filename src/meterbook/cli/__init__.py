"""The commands: a door to the ledger for people and scripts.

``command``  what all commands share: their options, errors to exit codes
``opening``  the ledger that the options name
``exits``    the exit codes, and how an error is told
``screen``   tables, amounts and bars, on a terminal and without one
``wire``     results as JSON
and one module for each group of commands: ``demo`` (with ``demo_screen``), ``imports``, ``recording``, ``reading``, ``limits``,
``holding``, ``billing``, ``outbox``, ``stripe``, ``running``, ``proof``, ``engine``.
"""

from meterbook.cli.app import main

__all__ = ["main"]
