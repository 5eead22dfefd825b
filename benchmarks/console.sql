-- name: record_entries
-- A page of entries, by the writer's own statement: few users use much, many a little; the last ten days, seeded by their number.
with made as (
  select n, 'user_' || floor(%(users)s * power(((n * 104729) %% 1000003) / 1000003.0, 3))::bigint as actor
  from generate_series(%(first)s::bigint, %(last)s::bigint) n)
select count(*) from (
  select array_agg(meterbook.event_key('console/' || m.n) order by m.n) as keys, array_agg(meterbook.event_key('fingerprint/' || m.n) order by m.n) as fingerprints,
         array_agg(m.actor order by m.n) as actors, array_agg('source ' || m.n %% 4 order by m.n) as sources,
         array_agg('model ' || m.n %% 25 order by m.n) as descriptions, array_agg((m.n %% 9973 + 1) * 0.000001 order by m.n) as amounts,
         array_agg(clock_timestamp() - (m.n %% 10) * interval '1 day' order by m.n) as occurred_ats
  from made m) a
cross join lateral meterbook.record_usage(
  keys => a.keys, fingerprints => a.fingerprints, actors => a.actors, sources => a.sources, descriptions => a.descriptions, amounts => a.amounts,
  occurred_ats => a.occurred_ats)

-- name: count_entries
select count(*) from meterbook.event_key

-- name: settle
-- What autovacuum would have done by now.
vacuum analyze
