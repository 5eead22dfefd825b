-- name: make_tables
-- Of the same shape as the ledger's, with its indexes and checks; a plain table takes COPY faster than a partitioned one.
create schema plain;
create table plain.event_key (like meterbook.event_key including all);
create table plain.usage_log (like meterbook.usage_log including all)

-- name: copy_keys
copy plain.event_key (key, fingerprint, entity_id, period_id, amount, recorded_at) from stdin (format binary)

-- name: copy_entries
copy plain.usage_log (entity_id, recorded_at, key, period_id, day, actor_id, occurred_at, amount, category, source, description)
from stdin (format binary)

-- name: pack_keys
copy (select key, fingerprint, entity_id, period_id, amount, recorded_at from plain.event_key order by key) to stdout (format binary)

-- name: pack_entries
copy (select entity_id, recorded_at, key, period_id, day, actor_id, occurred_at, amount, category, source, description
      from plain.usage_log order by key) to stdout (format binary)

-- name: empty_tables
truncate plain.event_key, plain.usage_log

-- name: list_parties
select a.external_id, a.id, a.payer_id, c.home_id from meterbook.actor a join meterbook.period_clock c on c.entity_id = a.payer_id
