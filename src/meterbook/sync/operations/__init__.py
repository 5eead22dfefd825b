"""The synchronous twin of meterbook.operations, generated."""
