-- name: read_committed
-- What the calls rest on: a statement sees what was committed before it, also where a database or a role has another default.
select pg_catalog.set_config('default_transaction_isolation', 'read committed', false)
where pg_catalog.current_setting('default_transaction_isolation') <> 'read committed'
