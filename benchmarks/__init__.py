"""Meterbook beside what it replaces: `python -m benchmarks`. See README.md."""
