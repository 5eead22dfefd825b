-- name: delta_size
-- On disk, with its index, and how many rows wait for the compactor.
select pg_total_relation_size('meterbook.usage_delta'), (select count(*) from meterbook.usage_delta)
