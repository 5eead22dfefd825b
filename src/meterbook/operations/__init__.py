"""The verbs, one file each: each takes a connection, owns the order of its steps, and never commits. Imports postgres, core, errors.

Start with `record_usage`, the one entry point of every surface. A call that has to know a new payer or open a period does so through
`Attribute`, in a short transaction of its own, and then records again.
"""
