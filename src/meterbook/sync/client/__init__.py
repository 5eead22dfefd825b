"""The synchronous twin of meterbook.client, generated."""
