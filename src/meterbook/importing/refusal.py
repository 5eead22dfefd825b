"""What refuses a whole import, before or while it runs; a bad row alone never does."""

from meterbook.errors import InvalidRequest


class ImportRefused(InvalidRequest):
    """The import can't be run as asked."""

    code = "import_refused"
