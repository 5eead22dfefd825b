"""The only room that knows SQL. Imports core and errors.

`migrations/` is the schema's history, plain SQL that a DBA can read: 0001 tables, 0002 who pays and for which period, 0003 customers,
0004 recording, 0005 corrections and running totals, 0006 compaction and reading, 0007 proof and roles. `schema.sql` is the present.
Each module here runs the statements of the `.sql` file beside it; `statements` loads them, `refusals` maps PostgreSQL's errors to ours;
`embedded/` runs a server where there is none. Start with migrations/0004_recording.sql.
"""
