-- name: compact
-- One fold; the entities whose total moved.
select c.entity_id, c.deltas from meterbook.compact(deltas_max => %(deltas_max)s, at => %(at)s::timestamptz) c

-- name: can_vacuum
select pg_catalog.pg_has_role(c.relowner, 'usage') from pg_catalog.pg_class c where c.oid = 'meterbook.usage_delta'::regclass

-- name: vacuum_deltas
-- Consumed rows are gone at once for readers, not for the disk; never truncates, which would need a lock that stops recorders.
vacuum (truncate off, skip_locked on, parallel 0) meterbook.usage_delta

-- name: ensure_partitions
select meterbook.ensure_partitions(at => %(at)s::timestamptz)

-- name: may_make_partitions
-- A reader's login leaves it to others.
select pg_catalog.has_function_privilege('meterbook.ensure_partitions(integer, timestamptz)', 'execute')
