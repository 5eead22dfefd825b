"""Files of usage, CSV or NDJSON, into the ledger: each row once, whatever happens in between.

``records``      a byte stream to raw rows, each with the line where it begins
``mapping``      which column feeds which field of an entry
``rows``         a raw row to an entry, or to the reason why it can't be one
``keys``         the event key of a row: digest of (import name, raw row, n-th equal row)
``rejects``      the file of rows that did not land, with line and reason
``import_file``  the loop: batches of rows to ``Book.record_bulk``, and the report
"""
