-- name: read_period
-- The facts of one period of an entity, from one snapshot. No row: the entity, or the period asked for, is not known (yet).
select meterbook.period_terms(e.id, p.id, m.at)
from (select coalesce(%(at)s::timestamptz, clock_timestamp()) as at) m
join meterbook.billing_entity e on e.kind = %(kind)s and e.external_id = %(external_id)s
join meterbook.billing_period p on p.entity_id = e.id and p.id = case %(period)s::text
  when 'current' then (select meterbook.home_at(c, m.at) from meterbook.period_clock c where c.entity_id = e.id and c.due_at > m.at)
  when 'last' then (select l.id from meterbook.billing_period l left join meterbook.subscription s on s.id = l.subscription_id
                    where l.entity_id = e.id and l.kind <> 'history' and l.ends_at <= m.at
                      and exists (select from meterbook.period_clock c where c.entity_id = e.id and c.due_at > m.at)
                    order by l.ends_at desc, meterbook.standing(s) desc, s.id limit 1)
  else %(period_id)s::bigint end

-- name: list_periods
-- Newest first.
select p.id, p.kind, p.starts_at, p.ends_at, p.plan, p.seats, p.included, p.refresh_per_day,
       case when p.state = 'open' and p.ends_at <= coalesce(%(at)s::timestamptz, clock_timestamp()) or p.state = 'sealing' then 'closing' else p.state end as state,
       p.subscription_id as subscription
from meterbook.billing_entity e join meterbook.billing_period p on p.entity_id = e.id
where e.kind = %(kind)s and e.external_id = %(external_id)s order by p.starts_at desc, p.id desc

-- name: list_entries
-- One page, newest first by (recorded_at, id), beside a summary of the whole filter; one row more than the page says that there is a next one.
-- `case … then true` hides from the planner how much a filter leaves: the page is an ordered scan of the key that stops at its last row, and never a
-- sort of all that the entity has. `by_sums`: the summary is one of those that are kept.
-- The actor's name by a sub-select: a join would have read every actor, where there are some thousand.
with payer as (select e.id from meterbook.billing_entity e where e.kind = %(kind)s and e.external_id = %(external_id)s),
named as (select a.id from meterbook.actor a where a.external_id = %(actor)s),
page as materialized (
  select l.* from meterbook.usage_log l
  where l.entity_id = (select p.id from payer p) and (%(actor)s::text is null or exists (select from named))
    and (l.recorded_at, l.key) < (coalesce(%(after_time)s::timestamptz, 'infinity'), coalesce(%(after_key)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
    and case when (%(actor)s::text is null or l.actor_id = (select n.id from named n)) and (%(workspace)s::text is null or l.workspace = %(workspace)s)
              and (%(source)s::text is null or l.source = %(source)s) and (%(category)s::text is null or l.category = %(category)s)
              and (%(start)s::timestamptz is null or l.occurred_at >= %(start)s) and (%(end)s::timestamptz is null or l.occurred_at < %(end)s)
              and (%(period)s::bigint is null or coalesce((select b.booked from meterbook.late_entry b where b.entity_id = l.entity_id and b.key = l.key),
                                                          l.period_id) = %(period)s)
        then true else false end
  order by l.recorded_at desc, l.key desc limit %(rows)s),
counted as (
  select count(*) as entries, coalesce(sum(l.amount), 0) as amount from meterbook.usage_log l
  left join meterbook.late_entry b on b.entity_id = l.entity_id and b.key = l.key
  where %(summary)s and not %(by_sums)s and l.entity_id = (select p.id from payer p)
    and (%(actor)s::text is null or l.actor_id = (select n.id from named n)) and (%(workspace)s::text is null or l.workspace = %(workspace)s)
    and (%(source)s::text is null or l.source = %(source)s) and (%(category)s::text is null or l.category = %(category)s)
    and (%(start)s::timestamptz is null or l.occurred_at >= %(start)s) and (%(end)s::timestamptz is null or l.occurred_at < %(end)s)
    and (%(period)s::bigint is null or coalesce(b.booked, l.period_id) = %(period)s)),
kept as (
  select r.entries, r.amount from meterbook.usage_rollup r
  where %(summary)s and %(by_sums)s and r.entity_id = (select p.id from payer p) and r.period_id = %(period)s
    and r.grain = case when %(actor)s::text is not null then 'actor' when %(source)s::text is not null then 'description' else 'total' end
    and (%(actor)s::text is null or r.part = (select n.id::text from named n)) and (%(source)s::text is null or r.part = %(source)s)
  union all
  select d.entries, d.amount from meterbook.usage_delta d
  where %(summary)s and %(by_sums)s and d.entity_id = (select p.id from payer p) and d.period_id = %(period)s
    and (%(actor)s::text is null or d.actor_id = (select n.id from named n)) and (%(source)s::text is null or d.source = %(source)s)),
summary as (
  select c.entries + coalesce(sum(k.entries), 0)::bigint as entries, c.amount + coalesce(sum(k.amount), 0) as amount
  from counted c left join kept k on true group by c.entries, c.amount)
select s.entries, s.amount as summed, p.key::text as id, coalesce((select a.external_id from meterbook.actor a where a.id = p.actor_id), '#' || p.actor_id) as actor, p.category, p.source, p.description, p.amount,
       p.occurred_at, p.recorded_at, coalesce(b.booked, p.period_id) as period, coalesce(b.stamped, p.belongs_to) as belongs_to,
       p.workspace, p.workflow, p.execution, p.source_reference, p.line, p.corrects::text as corrects, p.reason, m.metadata
from summary s left join page p on true
left join meterbook.late_entry b on b.entity_id = p.entity_id and b.key = p.key
left join meterbook.entry_metadata m on m.entity_id = p.entity_id and m.key = p.key
order by p.recorded_at desc, p.key desc

-- name: is_current
-- Whether the clock of an entity has nothing to open.
select exists (select from meterbook.billing_entity e join meterbook.period_clock c on c.entity_id = e.id
  where e.kind = %(kind)s and e.external_id = %(external_id)s and c.due_at > coalesce(%(at)s::timestamptz, clock_timestamp()))

-- name: entity_exists
select exists (select from meterbook.billing_entity e where e.kind = %(kind)s and e.external_id = %(external_id)s)

-- name: list_largest_entries
-- The rows behind a period's figure: of each source and description the largest, and how many and how much they are with the others; and late ones.
-- At most `rows_read` are looked at, the newest of a period that runs, the first ones of another; late ones are found by an index of theirs.
with payer as (select b.id from meterbook.billing_entity b where b.kind = %(kind)s and b.external_id = %(external_id)s),
looked_at as materialized (
  (select l.entity_id, l.key, l.recorded_at from meterbook.usage_log l
   where %(newest)s and l.entity_id = (select p.id from payer p) order by l.recorded_at desc, l.key desc limit %(rows_read)s)
  union all
  (select l.entity_id, l.key, l.recorded_at from meterbook.usage_log l
   where not %(newest)s and l.entity_id = (select p.id from payer p) and l.recorded_at >= %(from_time)s::timestamptz
   order by l.recorded_at, l.key limit %(rows_read)s)),
late as materialized (
  select l.entity_id, l.key, l.recorded_at from meterbook.usage_log l
  where l.entity_id = (select p.id from payer p) and l.period_id = %(period)s and l.belongs_to is not null
  union
  select k.entity_id, k.key, k.recorded_at from meterbook.late_entry b join meterbook.event_key k on k.key = b.key
  where b.entity_id = (select p.id from payer p) and b.booked = %(period)s),
row_of as (
  select l.key, l.actor_id, l.source, l.description, l.amount, l.occurred_at, coalesce(b.stamped, l.belongs_to) as belongs_to, l.corrects, l.reason,
         row_number() over (partition by l.source, l.description order by abs(l.amount) desc, l.recorded_at, l.key) as place,
         row_number() over (partition by coalesce(b.stamped, l.belongs_to) order by l.recorded_at, l.key) as place_late
  from (select entity_id, key, recorded_at from looked_at union select entity_id, key, recorded_at from late) x
  join meterbook.usage_log l on l.entity_id = x.entity_id and l.recorded_at = x.recorded_at and l.key = x.key
  left join meterbook.late_entry b on b.entity_id = l.entity_id and b.key = l.key
  where coalesce(b.booked, l.period_id) = %(period)s),
alike as (
  select s.source, s.description, sum(s.entries)::bigint as entries, sum(s.amount) as amount from (
    select r.part as source, r.detail as description, r.entries, r.amount from meterbook.usage_rollup r
    where r.entity_id = (select p.id from payer p) and r.period_id = %(period)s and r.grain = 'description'
    union all
    select d.source, d.description, d.entries, d.amount from meterbook.usage_delta d
    where d.entity_id = (select p.id from payer p) and d.period_id = %(period)s) s
  group by s.source, s.description)
select r.key::text as id, coalesce(a.external_id, '#' || a.id) as actor, r.source, r.description, r.amount, r.occurred_at, r.belongs_to,
       r.corrects::text, r.reason, coalesce(s.entries, 1) as entries_alike, coalesce(s.amount, r.amount) as amount_alike
from row_of r join meterbook.actor a on a.id = r.actor_id
left join alike s on s.source = r.source and s.description = r.description
where r.place <= %(rows)s or (r.belongs_to is not null and r.place_late <= %(late_rows)s)
order by r.source, r.description, abs(r.amount) desc, r.key

-- name: sum_late
-- Late rows of a period, by the closed period that they belong to: those that were late when they were recorded, and those that became visible too late.
with payer as (select b.id from meterbook.billing_entity b where b.kind = %(kind)s and b.external_id = %(external_id)s),
late as (
  select l.belongs_to, l.amount from meterbook.usage_log l
  where l.entity_id = (select p.id from payer p) and l.period_id = %(period)s and l.belongs_to is not null
    and not exists (select from meterbook.late_entry b where b.entity_id = l.entity_id and b.key = l.key)
  union all
  select b.stamped, l.amount from meterbook.late_entry b join meterbook.event_key k on k.key = b.key
  join meterbook.usage_log l on l.entity_id = b.entity_id and l.recorded_at = k.recorded_at and l.key = b.key
  where b.entity_id = (select p.id from payer p) and b.booked = %(period)s)
select t.belongs_to, count(*) as entries, sum(t.amount) as amount from late t group by 1 order by 1

-- name: find_role
-- What a user is to an entity: `self`, or their role in the organization.
select case when b.kind = 'user' and b.external_id = %(user)s then 'self' else
  (select m.role from meterbook.member m join meterbook.actor a on a.id = m.actor_id
   where m.organization_id = b.id and a.external_id = %(user)s and m.left_at is null) end
from meterbook.billing_entity b where b.kind = %(kind)s and b.external_id = %(external_id)s
