-- Proof (BEHAVIOUR §14): every derived figure recomputed from the entries. A claim each; a row for each thing that does not bear it out. Readers of
-- one statement, so of one snapshot; they lock nothing, and a healthy ledger gives no row while others write.

create type meterbook.difference as (
  claim text, entity_id bigint, period_id bigint, grain text, part text, detail text,
  ledger_amount numeric, derived_amount numeric, ledger_entries bigint, derived_entries bigint);
comment on type meterbook.difference is 'ledger_…: what the entries say; derived_…: what was found. Null: there is nothing.';

create function meterbook.placed_entries(the_entity bigint)
returns table (entity_id bigint, key uuid, period_id bigint, day integer, actor_id bigint, occurred_at timestamptz, amount numeric, corrects uuid)
language sql stable as $$
  -- Entries where they are booked: one that became visible after its period was sealed, where the fold has booked it.
  select l.entity_id, l.key, coalesce(e.booked, l.period_id), case when e.key is null then l.day else e.day end, l.actor_id, l.occurred_at, l.amount, l.corrects
  from meterbook.usage_log l left join meterbook.late_entry e on e.entity_id = l.entity_id and e.key = l.key
  where the_entity is null or l.entity_id = the_entity
$$;

create function meterbook.said_again(the_entity bigint)
returns table (entity_id bigint, recorded_at timestamptz, key uuid, period_id bigint, belongs_to bigint, amount numeric, fingerprint uuid, of_nobody boolean, erased boolean)
language sql stable as $$
  -- Entries as their keys should say them. No fingerprint: who acted was erased, and what was said of them can't be said again.
  select l.entity_id, l.recorded_at, l.key, l.period_id, l.belongs_to, l.amount,
         case when l.corrects is null then meterbook.fingerprint(a.external_id, l.category, l.source, l.description, l.amount, g.currency)
              else meterbook.correction_fingerprint(l.corrects, l.amount, g.currency) end,
         a.id is null, a.id is not null and a.external_id is null and l.corrects is null
  from meterbook.usage_log l cross join meterbook.ledger g left join meterbook.actor a on a.id = l.actor_id
  where the_entity is null or l.entity_id = the_entity
$$;

create function meterbook.unprovable(the_entity bigint default null) returns bigint
language sql stable set jit = off as $$
  -- Entries whose fingerprint nobody can recompute any more: the person was erased.
  select count(*) from meterbook.usage_log l join meterbook.actor a on a.id = l.actor_id
  where (the_entity is null or l.entity_id = the_entity) and a.external_id is null and l.corrects is null
$$;

create function meterbook.rollup_differences(the_entity bigint) returns setof meterbook.difference
language sql stable as $$
  with rolled as materialized (
    select r.* from meterbook.usage_rollup r where the_entity is null or r.entity_id = the_entity),
  expected as (                              -- a description beyond the cap is in (other) of its source
    select g.entity_id, g.period_id, g.grain, g.part,
           case when g.grain <> 'description' or r.detail is not null then g.detail else '(other)' end as detail,
           sum(g.amount) as amount, sum(g.entries) as entries, sum(g.digest) as digest
    from meterbook.recomputed(the_entity) g
    left join rolled r on r.entity_id = g.entity_id and r.period_id = g.period_id and r.grain = g.grain and r.part = g.part and r.detail = g.detail
    group by 1, 2, 3, 4, 5)
  select 'rollup + deltas = entries', coalesce(x.entity_id, r.entity_id), coalesce(x.period_id, r.period_id), coalesce(x.grain, r.grain),
         coalesce(x.part, r.part), coalesce(x.detail, r.detail), x.amount, r.amount, x.entries::bigint, r.entries
  from expected x full join rolled r
    on r.entity_id = x.entity_id and r.period_id = x.period_id and r.grain = x.grain and r.part = x.part and r.detail = x.detail
  where (coalesce(x.amount, 0), coalesce(x.entries, 0), coalesce(x.digest, 0)) is distinct from (coalesce(r.amount, 0), coalesce(r.entries, 0), coalesce(r.digest, 0))
  union all
  select 'a rollup knows how many descriptions it has', t.entity_id, t.period_id, 'total', '', 'descriptions', t.amount, t.amount, d.every, t.descriptions
  from rolled t
  cross join lateral (                       -- what is beyond the cap has no description of its own; but one may be called that
    select count(*) as every, count(*) filter (where r.detail <> '(other)') as named from rolled r
    where r.entity_id = t.entity_id and r.period_id = t.period_id and r.grain = 'description') d
  where t.grain = 'total' and t.descriptions not between d.named and d.every
$$;

create function meterbook.entry_differences(the_entity bigint) returns setof meterbook.difference
language sql stable as $$
  select 'every entry has its key, every key its entry', coalesce(l.entity_id, k.entity_id), coalesce(l.period_id, k.period_id), 'key',
         coalesce(l.key, k.key)::text,
         concat_ws(', ', case when k.entity_id <> l.entity_id then 'entity' end, case when k.recorded_at <> l.recorded_at then 'recorded_at' end,
                   case when (k.period_id, k.belongs_to) is distinct from (l.period_id, l.belongs_to) then 'period' end,
                   case when k.amount <> l.amount then 'amount' end, case when l.of_nobody then 'actor' end,
                   case when k.fingerprint <> l.fingerprint then 'fingerprint' end),
         l.amount, k.amount, (l.key is not null)::integer, (k.key is not null)::integer
  from (select k.* from meterbook.event_key k where the_entity is null or k.entity_id = the_entity) k
  full join meterbook.said_again(the_entity) l on l.key = k.key
  where k.key is null or l.key is null or l.of_nobody or k.fingerprint <> l.fingerprint
     or (k.entity_id, k.recorded_at, k.period_id, k.belongs_to, k.amount) is distinct from (l.entity_id, l.recorded_at, l.period_id, l.belongs_to, l.amount)
  union all
  select 'every entry is of a period that its entity has', l.entity_id, l.period_id, 'key', l.key::text, '', l.amount, null, 1, null
  from meterbook.usage_log l
  where (the_entity is null or l.entity_id = the_entity)
    and not exists (select from meterbook.billing_period p where p.entity_id = l.entity_id and p.id = l.period_id)
  union all
  select 'the day of an entry is that of its time in its period', l.entity_id, l.period_id, 'key', l.key::text,
         format('day %s, %s is in day %s', coalesce(l.day::text, '(none)'), l.occurred_at, meterbook.day_in(l.occurred_at, p.starts_at, p.ends_at)),
         l.amount, l.amount, 1, 1
  from meterbook.placed_entries(the_entity) l join meterbook.billing_period p on p.entity_id = l.entity_id and p.id = l.period_id
  where p.kind <> 'history' and case when l.day is null then l.corrects is null or l.amount > 0      -- given back in money: on no day
                                     else l.day < 0 or not p.moved and l.day <> meterbook.day_in(l.occurred_at, p.starts_at, p.ends_at) end
$$;

create function meterbook.correction_differences(the_entity bigint) returns setof meterbook.difference
language sql stable as $$
  select 'corrected = Σ corrections', coalesce(c.entity_id, l.entity_id), o.period_id, 'correction', coalesce(c.key, l.corrects)::text,
         case when c.original <> o.amount then 'original ' || trim_scale(c.original) || ' of ' || trim_scale(o.amount) else '' end,
         l.amount, c.corrected, l.entries, null
  from (select c.* from meterbook.entry_correction c where the_entity is null or c.entity_id = the_entity) c
  full join (select l.entity_id, l.corrects, sum(l.amount) as amount, count(*) as entries from meterbook.usage_log l
             where l.corrects is not null and (the_entity is null or l.entity_id = the_entity) group by 1, 2) l
    on l.corrects = c.key and l.entity_id = c.entity_id
  left join meterbook.event_key f on f.key = coalesce(c.key, l.corrects)
  left join meterbook.usage_log o on o.entity_id = f.entity_id and o.recorded_at = f.recorded_at and o.key = f.key
  where c.corrected is distinct from l.amount or c.original is distinct from o.amount
  union all
  -- where its entry stands: as stamped, or, once that was folded after a seal, where it is booked
  select 'a correction is kept with the period and day of its entry', coalesce(l.entity_id, c.entity_id), coalesce(l.period_id, c.booked), 'correction',
         coalesce(l.key, c.key)::text,
         concat_ws(', ', case when c.corrects <> l.corrects then 'entry' end, case when c.booked <> l.period_id then 'booked' end,
                   case when c.of_period not in (o.period_id, coalesce(e.booked, o.period_id)) then 'period' end,
                   case when (c.of_period, c.of_day) is distinct from (o.period_id, o.day)
                         and (c.of_period, c.of_day) is distinct from (e.booked, e.day) then 'day' end),
         l.amount, c.amount, (l.key is not null)::integer, (c.key is not null)::integer
  from (select c.* from meterbook.correction c where the_entity is null or c.entity_id = the_entity) c
  full join (select l.* from meterbook.usage_log l where l.corrects is not null and (the_entity is null or l.entity_id = the_entity)) l
    on l.entity_id = c.entity_id and l.key = c.key
  left join meterbook.event_key f on f.key = l.corrects
  left join meterbook.usage_log o on o.entity_id = f.entity_id and o.recorded_at = f.recorded_at and o.key = f.key
  left join meterbook.late_entry e on e.entity_id = o.entity_id and e.key = o.key
  where (c.corrects, c.booked, c.amount) is distinct from (l.corrects, l.period_id, l.amount)
     or (c.of_period, c.of_day) is distinct from (o.period_id, o.day) and (c.of_period, c.of_day) is distinct from (e.booked, e.day)
  union all
  select 'running total = Σ its rises', coalesce(c.entity_id, l.entity_id), null, 'request', coalesce(c.name, l.request::text), '', l.amount, c.total, l.entries, null
  from (select c.* from meterbook.cumulative_request c where the_entity is null or c.entity_id = the_entity) c
  full join (select r.entity_id, r.request, sum(u.amount) as amount, count(u.key) as entries
             from meterbook.cumulative_rise r
             left join meterbook.usage_log u on u.entity_id = r.entity_id and u.recorded_at = r.recorded_at and u.key = r.key
             where the_entity is null or r.entity_id = the_entity group by 1, 2) l on l.request = c.request and l.entity_id = c.entity_id
  where c.total is distinct from l.amount
$$;

create function meterbook.billing_differences(the_entity bigint) returns setof meterbook.difference
language sql stable as $$
  with sealed as materialized (
    select s.* from meterbook.sealed_period s where the_entity is null or s.entity_id = the_entity),
  waiting as materialized (                  -- became visible after the seal: will be booked elsewhere
    select d.entity_id, k.key from meterbook.usage_delta d join sealed s on s.entity_id = d.entity_id and s.period_id = d.period_id
    cross join unnest(d.keys) k(key)),
  summed as materialized (
    select l.entity_id, l.period_id, l.actor_id, sum(l.amount) as amount, count(*) as entries, sum(meterbook.key_weight(l.key) * l.amount) as digest
    from meterbook.placed_entries(the_entity) l join sealed s on s.entity_id = l.entity_id and s.period_id = l.period_id
    where not exists (select from waiting w where w.entity_id = l.entity_id and w.key = l.key)
    group by 1, 2, 3),
  billed as (
    select c.entity_id, c.period_id, sum(c.charged_cents)::bigint as charged, sum(c.credits_cents)::bigint as credits,
           sum(c.written_off_cents)::bigint as written_off, coalesce(sum(c.charged_cents + c.credits_cents) filter (where c.kind <> 'final'), 0)::bigint as before
    from meterbook.charge c where the_entity is null or c.entity_id = the_entity group by 1, 2)
  select 'a sealed period = its entries', s.entity_id, s.period_id, 'sealed', '', '', coalesce(t.amount, 0), s.amount, coalesce(t.entries, 0)::bigint, s.entries
  from sealed s
  left join (select x.entity_id, x.period_id, sum(x.amount) as amount, sum(x.entries) as entries, sum(x.digest) as digest from summed x group by 1, 2) t
    on t.entity_id = s.entity_id and t.period_id = s.period_id
  where (s.amount, s.entries, s.digest) is distinct from (coalesce(t.amount, 0), coalesce(t.entries, 0), coalesce(t.digest, 0))
  union all
  select 'a sealed actor = their entries', coalesce(s.entity_id, x.entity_id), coalesce(s.period_id, x.period_id), 'sealed', coalesce(s.actor_id, x.actor_id)::text, '',
         x.amount, s.amount, x.entries, s.entries
  from (select a.* from meterbook.sealed_actor a where the_entity is null or a.entity_id = the_entity) s
  full join summed x on x.entity_id = s.entity_id and x.period_id = s.period_id and x.actor_id = s.actor_id
  where (s.amount, s.entries) is distinct from (x.amount, x.entries)
  union all
  select 'billed = overage, or what was billed before the close', s.entity_id, s.period_id, 'sealed', '', 'charges, credits, written off',
         greatest(round(s.overage, 2), coalesce(b.before, 0) * 0.01), coalesce(b.charged + b.credits + b.written_off, 0) * 0.01, null, null
  from sealed s left join billed b on b.entity_id = s.entity_id and b.period_id = s.period_id
  where (s.charged_cents, s.credits_cents, s.written_off_cents) is distinct from (coalesce(b.charged, 0), coalesce(b.credits, 0), coalesce(b.written_off, 0))
     or s.charged_cents + s.credits_cents + s.written_off_cents <> greatest(round(s.overage * 100), coalesce(b.before, 0))
  union all
  select 'the credits of a charge = what grants paid', c.entity_id, c.period_id, 'charge', c.id::text, '', p.cents * 0.01, c.credits_cents * 0.01, null, null
  from meterbook.charge c
  left join (select x.entity_id, x.charge_id, sum(x.cents) as cents from meterbook.credit_spend x where x.charge_id is not null group by 1, 2) p
    on p.entity_id = c.entity_id and p.charge_id = c.id
  where (the_entity is null or c.entity_id = the_entity) and c.credits_cents <> coalesce(p.cents, 0)
  union all
  select 'no grant pays more than it has', g.entity_id, g.period_id, 'grant', g.grant_key, '', g.cents * 0.01, p.cents * 0.01, null, null
  from meterbook.credit_grant g
  join (select x.entity_id, x.grant_id, sum(x.cents) as cents from meterbook.credit_spend x group by 1, 2) p on p.entity_id = g.entity_id and p.grant_id = g.id
  where (the_entity is null or g.entity_id = the_entity) and p.cents > g.cents
  union all
  select 'every charge is said in the outbox', c.entity_id, c.period_id, 'charge', c.id::text, '', c.charged_cents * 0.01, o.cents * 0.01, null, null
  from meterbook.charge c
  left join (select x.entity_id, (x.payload ->> 'charge')::bigint as charge_id, sum((x.payload ->> 'amount_cents')::bigint) as cents
             from meterbook.outbox x where x.kind = 'charge' group by 1, 2) o on o.entity_id = c.entity_id and o.charge_id = c.id
  where (the_entity is null or c.entity_id = the_entity) and c.kind <> 'carried' and c.charged_cents <> coalesce(o.cents, 0)
$$;

create function meterbook.differences(the_entity bigint default null) returns setof meterbook.difference
language sql stable set jit = off as $$
  select d.* from (
    select * from meterbook.rollup_differences(the_entity) union all select * from meterbook.entry_differences(the_entity)
    union all select * from meterbook.correction_differences(the_entity) union all select * from meterbook.billing_differences(the_entity)) d
  order by d.entity_id, d.period_id, d.grain, d.part, d.detail
$$;

revoke all on all functions in schema meterbook from public;
grant execute on function
  meterbook.placed_entries, meterbook.said_again, meterbook.unprovable, meterbook.rollup_differences, meterbook.entry_differences,
  meterbook.correction_differences, meterbook.billing_differences, meterbook.differences
  to meterbook_reader, meterbook_importer;
