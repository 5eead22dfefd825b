-- name: record_entries
-- As many entries of one actor as asked for, by the writer's own statement: a month of models and sources. Seeded by their number.
select count(*) from meterbook.record_usage(
  keys => (select array_agg(meterbook.event_key(%(actor)s::text || '/' || n) order by n) from generate_series(%(first)s::bigint, %(last)s::bigint) n),
  fingerprints => (select array_agg(meterbook.event_key('fingerprint/' || n) order by n) from generate_series(%(first)s::bigint, %(last)s::bigint) n),
  actors => array_fill(%(actor)s::text, array[%(last)s::int - %(first)s::int + 1]),
  sources => (select array_agg('source ' || n %% 4 order by n) from generate_series(%(first)s::bigint, %(last)s::bigint) n),
  descriptions => (select array_agg('model ' || n %% 25 order by n) from generate_series(%(first)s::bigint, %(last)s::bigint) n),
  amounts => (select array_agg((n %% 9973 + 1) * 0.000001 order by n) from generate_series(%(first)s::bigint, %(last)s::bigint) n),
  occurred_ats => (select array_agg(clock_timestamp() - (n %% 28) * interval '1 day' order by n)
                   from generate_series(%(first)s::bigint, %(last)s::bigint) n))

-- name: fill_origin
insert into usage_log (id, user_id, category, source, description, cost, event_key, billing_entity_type, billing_entity_id,
  billing_period_start, billing_period_end, workspace_id, workflow_id, execution_id, created_at)
select md5(%(user)s || 'id' || n), %(user)s, 'model', 'source ' || n %% 4, 'model ' || n %% 25, (n %% 9973 + 1) * 0.000001,
  md5(%(user)s || 'a' || n) || md5(%(user)s || 'b' || n), 'user', %(user)s, '2026-06-01', '2026-07-01', 'workspace ' || n %% 20, 'workflow ' || n %% 100,
  md5(%(user)s || 'e' || n), timestamp '2026-06-28' - (n %% 28) * interval '1 day'
from generate_series(1, %(entries)s::bigint) n

-- name: settle_tables
-- What autovacuum would have done by now.
vacuum analyze
