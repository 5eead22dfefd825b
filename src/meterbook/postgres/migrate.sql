-- name: lock_migrations
-- One migrator at a time; a session's lock, since each file has its own transaction.
select pg_advisory_lock(5067, 0)

-- name: unlock_migrations
select pg_advisory_unlock(5067, 0)

-- name: make_schema
-- The schema and the list of what was applied to it.
create schema if not exists meterbook;
create table if not exists meterbook.migration (
  number     integer primary key,
  name       text not null,
  checksum   text not null,
  applied_at timestamptz not null default clock_timestamp()
)

-- name: has_schema
select to_regprocedure('meterbook.applied_migrations()') is not null

-- name: list_applied
select number, checksum from meterbook.migration order by number

-- name: bound_locks
-- A migration that can't have its lock at once gives up rather than stop the writers that queue behind it.
set local lock_timeout = '2s'

-- name: note_applied
insert into meterbook.migration (number, name, checksum) values (%(number)s, %(name)s, %(checksum)s)

-- name: settle_ledger
-- The first migration decides the currency, the kind of free period and whose clock counts for good; gives what holds.
with made as (
  insert into meterbook.ledger (currency, free_period) values (%(currency)s, %(free_period)s) on conflict do nothing
  returning currency, free_period)
select currency, free_period from made union all select currency, free_period from meterbook.ledger limit 1

-- name: ensure_partitions
select meterbook.ensure_partitions(at => %(at)s::timestamptz)

-- name: list_applied_to_all
-- The same for a login that may read no table.
select number, checksum from meterbook.applied_migrations()

-- name: find_settled
select currency, free_period, is_demo from meterbook.settled()

-- name: begin_demo
select meterbook.begin_demo()
