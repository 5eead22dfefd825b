"""The synchronous twin of meterbook.postgres, generated."""
