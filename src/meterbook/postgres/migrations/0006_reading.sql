-- Compaction and reading (BEHAVIOUR §5): what is known of a period is Σ rollup + Σ delta under one snapshot, exact while writers run, and it
-- costs the same whether the period has ten rows or ten million. Only deltas that are committed and visible are folded, each exactly once:
-- there is no watermark to get wrong.

create function meterbook.late_parts(the_entity bigint, keys uuid[], at timestamptz)
returns table (key uuid, stamped bigint, booked bigint, day integer, amount numeric)
language plpgsql stable rows 10 set enable_nestloop = on set plan_cache_mode = force_generic_plan as $$
-- The entries behind a delta whose period was closed before it became visible: each is booked at home, on its own day there. plpgsql, so that
-- readers, who hardly ever meet one, don't set up a scan of every partition with each of their reads.
#variable_conflict use_column
begin
  return query
  select k.key, k.period_id, home.home_id, case when l.day is not null then meterbook.day_in(l.occurred_at, home.home_starts_at, home.home_ends_at) end, k.amount
  from unnest(keys) u(key)
  join meterbook.event_key k on k.key = u.key
  join meterbook.usage_log l on l.entity_id = k.entity_id and l.recorded_at = k.recorded_at and l.key = k.key
  join meterbook.period_clock home on home.entity_id = the_entity and home.due_at > late_parts.at
  join meterbook.billing_period p on p.entity_id = the_entity and p.id = home.home_id and p.state = 'open';
end $$;

create function meterbook.without_home(deltas tid[], at timestamptz) returns setof bigint
language sql stable as $$
  -- Entities of these deltas that have late ones, and nowhere to book them yet.
  -- `distinct` keeps the look-up by ctid apart: joined first, the planner compares every delta with every ctid.
  select distinct d.entity_id from (select distinct w.entity_id, w.period_id from meterbook.usage_delta w where w.ctid = any (deltas)) d
  cross join lateral (select p.state from meterbook.billing_period p where p.entity_id = d.entity_id and p.id = d.period_id limit 1) stamped
  left join lateral (
    select true as is_there from meterbook.period_clock c join meterbook.billing_period h on h.entity_id = c.entity_id and h.id = c.home_id and h.state = 'open'
    where c.entity_id = d.entity_id and c.due_at > at limit 1) home on stamped.state = 'closed'
  where stamped.state = 'closed' and home.is_there is null
  order by 1
$$;

create function meterbook.compact(deltas_max integer default 50000, at timestamptz default null, descriptions_max integer default 1000)
returns table (entity_id bigint, deltas bigint)
language plpgsql security definer
set search_path = meterbook, pg_temp as $$
-- One compactor at a time. The lock is taken in a statement of its own: inside the fold, the snapshot would be older than the lock.
-- Gives the entities whose total moved; no row: nothing was waiting.
declare
  moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
  picked tid[];
  behind bigint[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'MB030', message = 'compact runs at READ COMMITTED only';
  end if;
  perform pg_advisory_xact_lock(5067, 1);
  picked := array(select d.ctid from meterbook.usage_delta d limit deltas_max);      -- they stay: rows are never updated, and we alone delete
  behind := array(select * from meterbook.without_home(picked, moment));
  if behind <> '{}' then
    perform meterbook.settle_due(meterbook.actors_of(behind), moment);
    perform meterbook.open_periods(behind, moment);
  end if;
  return query select f.entity_id, f.deltas from meterbook.fold_deltas(picked, moment, descriptions_max) f;
end $$;

create function meterbook.fold_deltas(picked tid[], moment timestamptz, descriptions_max integer)
returns table (entity_id bigint, deltas bigint)
language plpgsql
set search_path = meterbook, pg_temp set jit = off set enable_nestloop = off set work_mem = '64MB' as $$
-- Consumes these deltas, under the fold's lock. Those of a closed period are booked at home; `moment` null: there are none.
#variable_conflict use_column
begin
  return query
  with consumed as (
    delete from meterbook.usage_delta where ctid = any (picked) and entity_id <> all (array(select * from meterbook.without_home(picked, moment)))
    returning entity_id, period_id, day, actor_id, source, description, amount, entries, digest, keys),
  period as materialized (                 -- `limit 1`, here and below: an index probe each, however many periods and rollups there are
    select m.entity_id, m.period_id, p.state from (select distinct c.entity_id, c.period_id from consumed c) m
    cross join lateral (select x.state from meterbook.billing_period x where x.entity_id = m.entity_id and x.id = m.period_id limit 1) p),
  closed as materialized (
    select c.* from consumed c join period p using (entity_id, period_id) where p.state = 'closed'),
  late as materialized (
    select c.entity_id, c.actor_id, c.source, c.description, part.* from closed c
    cross join lateral (select x.* from meterbook.late_parts(c.entity_id, c.keys, moment) x offset 0) part),
  booked_late as (
    insert into meterbook.late_entry (entity_id, key, stamped, booked, day) select entity_id, key, stamped, booked, day from late),
  movement as (
    select c.entity_id, c.period_id, c.day, c.actor_id, c.source, c.description, c.amount, c.entries, c.digest
    from consumed c join period p using (entity_id, period_id) where p.state <> 'closed'
    union all
    select l.entity_id, l.booked, l.day, l.actor_id, l.source, l.description, l.amount, 1, meterbook.key_weight(l.key) * l.amount from late l),
  grouped as materialized (
    select entity_id, period_id,
           case grouping(day, actor_id, source) when 7 then 'total' when 3 then 'day' when 5 then 'actor' else 'description' end as grain,
           coalesce(day::text, actor_id::text, source, '') as part, coalesce(description, '') as detail,
           sum(amount) as amount, sum(entries)::bigint as entries, sum(digest) as digest, count(*) as deltas
    from movement
    group by grouping sets ((entity_id, period_id), (entity_id, period_id, day), (entity_id, period_id, actor_id), (entity_id, period_id, source, description))),
  unknown as materialized (                 -- descriptions that the rollup doesn't know yet
    select g.entity_id, g.period_id, g.part, g.detail from grouped g
    left join lateral (select true as is_there from meterbook.usage_rollup r where r.entity_id = g.entity_id and r.period_id = g.period_id
                       and r.grain = 'description' and r.part = g.part and r.detail = g.detail limit 1) known on true
    where g.grain = 'description' and known.is_there is null),
  fresh as materialized (                   -- and whether there is room for them
    select u.entity_id, u.period_id, u.part, u.detail,
           coalesce(total.descriptions, 0) + row_number() over (partition by u.entity_id, u.period_id order by u.part, u.detail) <= descriptions_max as fits
    from unknown u
    left join lateral (select r.descriptions from meterbook.usage_rollup r where r.entity_id = u.entity_id and r.period_id = u.period_id
                       and r.grain = 'total' and r.part = '' and r.detail = '' limit 1) total on true),
  named as (
    select f.entity_id, f.period_id, count(*) as descriptions from fresh f where f.fits group by f.entity_id, f.period_id),
  kept as (
    select g.entity_id, g.period_id, g.grain, g.part, case when f.fits is false then '(other)' else g.detail end as detail,
           g.amount, g.entries, g.digest, coalesce(n.descriptions, 0) as descriptions
    from grouped g
    left join fresh f on g.grain = 'description' and f.entity_id = g.entity_id and f.period_id = g.period_id and f.part = g.part and f.detail = g.detail
    left join named n on g.grain = 'total' and n.entity_id = g.entity_id and n.period_id = g.period_id),
  folded as (
    insert into meterbook.usage_rollup (entity_id, period_id, grain, part, detail, amount, entries, digest, descriptions)
    select k.entity_id, k.period_id, k.grain, k.part, k.detail, sum(k.amount), sum(k.entries), sum(k.digest), sum(k.descriptions)
    from kept k group by k.entity_id, k.period_id, k.grain, k.part, k.detail
    order by k.entity_id, k.period_id, k.grain, k.part, k.detail
    on conflict on constraint usage_rollup_pkey do update set
      amount = usage_rollup.amount + excluded.amount, entries = usage_rollup.entries + excluded.entries,
      digest = usage_rollup.digest + excluded.digest, descriptions = usage_rollup.descriptions + excluded.descriptions),
  looked_at_next as (
    insert into meterbook.moved_entity (entity_id, since) select distinct g.entity_id, moment from grouped g where moment is not null)
  select g.entity_id, sum(g.deltas)::bigint from grouped g where g.grain = 'total' group by g.entity_id;
end $$;

create function meterbook.pending_of(the_entity bigint, the_period bigint, at timestamptz)
returns table (day integer, actor_id bigint, source text, description text, amount numeric, entries bigint, digest numeric)
language sql stable as $$
  -- Deltas of a period that are not folded yet; to the home of the entity belong also those whose own period was closed before they were seen.
  select d.day, d.actor_id, d.source, d.description, d.amount, d.entries, d.digest from meterbook.usage_delta d
  where d.entity_id = the_entity and d.period_id = the_period
    and not exists (select from meterbook.billing_period p where p.entity_id = the_entity and p.id = the_period and p.state = 'closed')
  union all
  select part.day, d.actor_id, d.source, d.description, part.amount, 1, meterbook.key_weight(part.key) * part.amount
  from meterbook.usage_delta d
  join meterbook.billing_period p on p.entity_id = the_entity and p.id = d.period_id and p.state = 'closed'
  cross join lateral meterbook.late_parts(the_entity, d.keys, at) part
  where d.entity_id = the_entity and part.booked = the_period
$$;

create function meterbook.usage_terms(the_entity bigint, the_period bigint, at timestamptz, grains text[] default null)
returns table (grain text, part text, detail text, amount numeric, entries bigint, digest numeric)
language sql stable as $$
  -- Every grain of a period from one snapshot: total, day, actor, description (source in part). STABLE: shares the caller's snapshot (I6).
  with pending as materialized (select p.* from meterbook.pending_of(the_entity, the_period, at) p),
  term as (
    select r.grain, r.part, r.detail, r.amount, r.entries, r.digest from meterbook.usage_rollup r
    where r.entity_id = the_entity and r.period_id = the_period and (grains is null or r.grain = any (grains))
    union all
    select case grouping(p.day, p.actor_id, p.source) when 7 then 'total' when 3 then 'day' when 5 then 'actor' else 'description' end,
           coalesce(p.day::text, p.actor_id::text, p.source, ''), coalesce(p.description, ''), sum(p.amount), sum(p.entries)::bigint, sum(p.digest)
    from pending p group by grouping sets ((), (p.day), (p.actor_id), (p.source, p.description)) having count(*) > 0)
  select t.grain, t.part, t.detail, sum(t.amount), sum(t.entries)::bigint, sum(t.digest) from term t
  where grains is null or t.grain = any (grains) group by t.grain, t.part, t.detail
$$;
