-- name: list_days
-- What was recorded and refreshed on each date, over all payers: a bucket of 24 hours counts on the date where it begins.
-- What is needed of a period goes along with its rows: joined to them again, thousands of payers would be thousands of times thousands.
with asked as (select coalesce(%(at)s::timestamptz, clock_timestamp()) as at),
seen as (
  select p.entity_id, p.id, p.kind, p.starts_at, p.refresh_per_day, a.at - make_interval(days => %(days)s) as since,
         floor(extract(epoch from a.at - make_interval(days => %(days)s) - p.starts_at) / 86400)::integer as first_day,
         greatest(ceil(extract(epoch from p.ends_at - p.starts_at) / 86400)::integer - 1, 0) as last_day
  from meterbook.billing_period p, asked a
  where p.ends_at > a.at - make_interval(days => %(days)s) and p.starts_at <= a.at and p.kind <> 'history'),
part as (
  select s.*, r.part::integer as day, r.amount
  from seen s join meterbook.usage_rollup r on r.entity_id = s.entity_id and r.period_id = s.id and r.grain = 'day' and r.part <> ''
  union all
  select s.*, d.day, d.amount from seen s join meterbook.usage_delta d on d.entity_id = s.entity_id and d.period_id = s.id
  where d.day is not null),
bucket as (
  select p.entity_id, p.id, p.kind, p.starts_at, p.refresh_per_day, p.since, least(p.day, p.last_day) as day, sum(p.amount) as amount
  from part p where p.day >= p.first_day group by 1, 2, 3, 4, 5, 6, 7)
select ((b.starts_at + b.day * interval '24 hours') at time zone 'UTC')::date as day, sum(b.amount) as amount,
       sum(case when b.kind = 'dated' then least(greatest(b.amount, 0), b.refresh_per_day) else 0 end) as refresh
from bucket b where b.starts_at + b.day * interval '24 hours' > b.since
group by 1 order by 1

-- name: sum_running
-- All periods that are not closed, in the terms of core.overage; `tests/console` holds the sums against it. `largest`: payers by what they used.
with asked as (select coalesce(%(at)s::timestamptz, clock_timestamp()) as at),
running as (
  select p.entity_id, p.id, p.kind, case when p.plan <> all (%(without_overage)s::text[]) then p.included end as included, p.refresh_per_day,
         greatest(ceil(extract(epoch from p.ends_at - p.starts_at) / 86400)::integer - 1, 0) as last_day, coalesce(n.amount, 0) as baseline,
         exists (select from meterbook.period_clock c where c.entity_id = p.entity_id and c.home_id = p.id) as is_home
  from meterbook.billing_period p left join meterbook.period_baseline n on n.entity_id = p.entity_id and n.period_id = p.id
  where p.state <> 'closed' and p.kind <> 'history'),
part as (
  select p.*, null::integer as day, 0::numeric as amount, 0::numeric as recorded from running p
  union all
  select p.*, case when r.part <> '' then r.part::integer end, r.amount, r.amount
  from running p join meterbook.usage_rollup r on r.entity_id = p.entity_id and r.period_id = p.id and r.grain = 'day'
  union all
  select p.*, d.day, d.amount, d.amount from running p join meterbook.usage_delta d on d.entity_id = p.entity_id and d.period_id = p.id
  union all
  select p.*, b.day, b.amount, 0 from running p join meterbook.period_baseline_day b on b.entity_id = p.entity_id and b.period_id = p.id),
bucket as (
  select x.entity_id, x.id, x.kind, x.included, x.refresh_per_day, x.baseline, x.is_home, case when x.day is not null then least(x.day, x.last_day) end as day,
         sum(x.amount) as amount, sum(x.recorded) as recorded
  from part x group by 1, 2, 3, 4, 5, 6, 7, 8),
used as (
  select b.entity_id, b.id, b.is_home, b.included, b.baseline + sum(b.recorded) as total,
         b.baseline + coalesce(sum(b.recorded) filter (where b.day is not null), 0) as counted,
         coalesce(sum(case when b.kind = 'dated' then least(greatest(b.amount, 0), b.refresh_per_day) else 0 end) filter (where b.day is not null), 0) as refresh
  from bucket b group by b.entity_id, b.id, b.is_home, b.included, b.baseline),
owed as (
  select u.*, greatest(u.counted - u.refresh, 0) as effective,
         case when u.included is null then 0 else greatest(greatest(u.counted - u.refresh, 0) - u.included, 0) end as overage from used u),
billed as (
  select o.*, greatest((round(o.overage, 2) * 100)::bigint
                       - coalesce((select sum(c.charged_cents + c.credits_cents) from meterbook.charge c where c.entity_id = o.entity_id and c.period_id = o.id), 0)::bigint,
                       0) as unbilled_cents,
         exists (select from meterbook.entity_block k where k.entity_id = o.entity_id) as is_blocked,
         exists (select from meterbook.deferred_close f where f.entity_id = o.entity_id and f.period_id = o.id) as is_deferred
  from owed o)
select coalesce(sum(b.total) filter (where b.is_home), 0) as total, coalesce(sum(b.refresh) filter (where b.is_home), 0) as refresh,
       coalesce(sum(b.effective) filter (where b.is_home), 0) as effective,
       count(*) filter (where b.is_home and b.total <> 0) as payers,
       coalesce(sum(b.unbilled_cents), 0)::bigint as unbilled_cents,
       coalesce(sum(b.unbilled_cents) filter (where b.is_deferred), 0)::bigint as deferred_cents,
       coalesce(sum(b.unbilled_cents) filter (where b.is_blocked and not b.is_deferred), 0)::bigint as blocked_cents,
       count(*) filter (where b.is_deferred) as deferred,
       coalesce((select array_agg(e.kind || ':' || e.external_id order by t.effective desc, e.id)
                 from (select x.entity_id, x.effective from billed x where x.is_home and x.total <> 0 order by x.effective desc, x.entity_id limit %(rows)s) t
                 join meterbook.billing_entity e on e.id = t.entity_id and e.external_id is not null), '{}') as largest
from billed b

-- name: read_waiting
-- What waits to be told or folded, and what was refused.
with asked as (select coalesce(%(at)s::timestamptz, clock_timestamp()) as at)
select a.at,
       (select min(d.recorded_at) from meterbook.usage_delta d) as oldest_delta,
       (select count(*) from meterbook.outbox_delivery v where v.state in ('due', 'leased')) as outbox,
       (select min(o.created_at) from meterbook.outbox_delivery v join meterbook.outbox o on o.id = v.outbox_id where v.state in ('due', 'leased')) as oldest_outbox,
       (select coalesce(sum((o.payload ->> 'amount_cents')::bigint), 0)::bigint from meterbook.outbox_delivery v join meterbook.outbox o on o.id = v.outbox_id
        where v.state in ('due', 'leased') and o.kind = 'charge' and o.created_at < a.at - interval '1 hour') as late_cents,
       (select count(*) from meterbook.outbox_delivery v where v.state = 'dead') as dead,
       (select coalesce(sum((o.payload ->> 'amount_cents')::bigint), 0)::bigint from meterbook.outbox_delivery v join meterbook.outbox o on o.id = v.outbox_id
        where v.state = 'dead' and o.kind = 'charge') as dead_cents,
       (select count(*) from meterbook.key_conflict k where k.at > a.at - interval '24 hours') as conflicts_of_a_day
from asked a

-- name: list_conflicts
-- Newest first, with both versions.
select k.key::text, k.at, k.first_said, k.then_said from meterbook.key_conflict k order by k.id desc limit %(rows)s

-- name: list_deferred
-- Closes that wait, oldest first.
select e.kind || ':' || coalesce(e.external_id, '#' || e.id), d.period_id, d.reason, d.since
from meterbook.deferred_close d join meterbook.billing_entity e on e.id = d.entity_id
join meterbook.billing_period p on p.entity_id = d.entity_id and p.id = d.period_id and p.state <> 'closed'
order by d.since, d.period_id limit %(rows)s

-- name: list_blocked
-- Oldest first.
select e.kind || ':' || coalesce(e.external_id, '#' || e.id), b.reason, b.reference, b.blocked_at
from meterbook.entity_block b join meterbook.billing_entity e on e.id = b.entity_id order by b.blocked_at, e.id limit %(rows)s

-- name: list_stuck
-- Outbox rows that were given up, tried often in vain, or wait for over an hour; money first, then the newest.
select o.id, o.kind, e.kind || ':' || coalesce(e.external_id, '#' || e.id), o.payload, o.created_at, d.state, d.attempts, d.due_at, d.step, d.invoice, d.note
from meterbook.outbox_delivery d join meterbook.outbox o on o.id = d.outbox_id join meterbook.billing_entity e on e.id = o.entity_id
where d.state = 'dead'
   or (d.state in ('due', 'leased')
       and (d.attempts >= %(attempts)s or o.created_at < coalesce(%(at)s::timestamptz, clock_timestamp()) - interval '1 hour'))
order by o.kind <> 'charge', o.id desc limit %(rows)s

-- name: find_names
-- Payers whose id begins with a text, or is it; few.
select e.kind || ':' || e.external_id from meterbook.billing_entity e
where e.external_id like %(pattern)s order by length(e.external_id), e.external_id, e.kind limit %(rows)s

-- name: list_all_periods
-- Periods of all payers, the latest end first; `before`: the (end, id) that the page before ended with.
select e.kind || ':' || coalesce(e.external_id, '#' || e.id), p.id, p.kind, p.starts_at, p.ends_at, p.plan, p.seats,
       case when p.state = 'open' and p.ends_at <= coalesce(%(at)s::timestamptz, clock_timestamp()) or p.state = 'sealing' then 'closing' else p.state end,
       s.overage, coalesce(c.charged, 0)::bigint, coalesce(c.credits, 0)::bigint, coalesce(c.written_off, 0)::bigint
from meterbook.billing_period p join meterbook.billing_entity e on e.id = p.entity_id
left join meterbook.sealed_period s on s.entity_id = p.entity_id and s.period_id = p.id
left join lateral (select sum(x.charged_cents) as charged, sum(x.credits_cents) as credits, sum(x.written_off_cents) as written_off
                   from meterbook.charge x where x.entity_id = p.entity_id and x.period_id = p.id) c on true
where p.kind = 'dated'
  and (%(state)s::text is null or p.state = %(state)s::text)
  and (%(before_end)s::timestamptz is null or (p.ends_at, p.id) < (%(before_end)s::timestamptz, %(before_id)s::bigint))
order by p.ends_at desc, p.id desc limit %(rows)s

-- name: list_all_charges
-- Newest first; `before`: a charge's id, for the next page.
select e.kind || ':' || coalesce(e.external_id, '#' || e.id), c.id, c.period_id, c.kind, c.charged_cents, c.credits_cents, c.written_off_cents, c.overage, c.at
from meterbook.charge c join meterbook.billing_entity e on e.id = c.entity_id
where %(before)s::bigint is null or c.id < %(before)s::bigint order by c.id desc limit %(rows)s
