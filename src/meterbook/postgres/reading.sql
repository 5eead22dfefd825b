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
-- `not materialized`: a page without a summary stops at its last row; kept, the whole filter would be read for each page.
with matching as not materialized (
  select l.*, a.external_id as actor_name, l2.booked, l2.stamped from meterbook.billing_entity e
  join meterbook.usage_log l on l.entity_id = e.id
  join meterbook.actor a on a.id = l.actor_id
  left join meterbook.late_entry l2 on l2.entity_id = l.entity_id and l2.key = l.key
  where e.kind = %(kind)s and e.external_id = %(external_id)s
    and (%(actor)s::text is null or a.external_id = %(actor)s) and (%(workspace)s::text is null or l.workspace = %(workspace)s)
    and (%(source)s::text is null or l.source = %(source)s) and (%(category)s::text is null or l.category = %(category)s)
    and (%(start)s::timestamptz is null or l.occurred_at >= %(start)s) and (%(end)s::timestamptz is null or l.occurred_at < %(end)s)
    and (%(period)s::bigint is null or coalesce(l2.booked, l.period_id) = %(period)s)),
summary as (select count(*) as entries, coalesce(sum(m.amount), 0) as amount from matching m where %(summary)s),
page as (
  select m.* from matching m
  where %(after_time)s::timestamptz is null or (m.recorded_at, m.key) < (%(after_time)s::timestamptz, %(after_key)s::uuid)
  order by m.recorded_at desc, m.key desc limit %(rows)s)
select s.entries, s.amount as summed, p.key::text as id, coalesce(p.actor_name, '#' || p.actor_id) as actor, p.category, p.source, p.description, p.amount,
       p.occurred_at, p.recorded_at, coalesce(p.booked, p.period_id) as period, coalesce(p.stamped, p.belongs_to) as belongs_to,
       p.workspace, p.workflow, p.execution, p.source_reference, p.line, p.corrects::text as corrects, p.reason, n.metadata
from summary s left join page p on true
left join meterbook.entry_metadata n on n.entity_id = p.entity_id and n.key = p.key
order by p.recorded_at desc, p.key desc

-- name: is_current
-- Whether the clock of an entity has nothing to open.
select exists (select from meterbook.billing_entity e join meterbook.period_clock c on c.entity_id = e.id
  where e.kind = %(kind)s and e.external_id = %(external_id)s and c.due_at > coalesce(%(at)s::timestamptz, clock_timestamp()))

-- name: entity_exists
select exists (select from meterbook.billing_entity e where e.kind = %(kind)s and e.external_id = %(external_id)s)

-- name: list_largest_entries
-- The rows behind a period's figure: of each source and description the largest, and how many and how much they are with the others; and late ones.
with row_of as (
  select l.key::text as id, coalesce(a.external_id, '#' || a.id) as actor, l.source, l.description, l.amount, l.occurred_at,
         coalesce(e.stamped, l.belongs_to) as belongs_to, l.corrects::text as corrects, l.reason,
         row_number() over (partition by l.source, l.description order by abs(l.amount) desc, l.recorded_at, l.key) as place,
         count(*) over alike as entries_alike, sum(l.amount) over alike as amount_alike,
         row_number() over (partition by coalesce(e.stamped, l.belongs_to) order by l.recorded_at, l.key) as place_late
  from meterbook.billing_entity b join meterbook.usage_log l on l.entity_id = b.id
  join meterbook.actor a on a.id = l.actor_id
  left join meterbook.late_entry e on e.entity_id = l.entity_id and e.key = l.key
  where b.kind = %(kind)s and b.external_id = %(external_id)s and coalesce(e.booked, l.period_id) = %(period)s
  window alike as (partition by l.source, l.description))
select r.id, r.actor, r.source, r.description, r.amount, r.occurred_at, r.belongs_to, r.corrects, r.reason, r.entries_alike, r.amount_alike
from row_of r where r.place <= %(rows)s or (r.belongs_to is not null and r.place_late <= %(late_rows)s)
order by r.source, r.description, abs(r.amount) desc, r.id

-- name: sum_late
-- Late rows of a period, by the closed period that they belong to.
select coalesce(e.stamped, l.belongs_to) as belongs_to, count(*) as entries, sum(l.amount) as amount
from meterbook.billing_entity b join meterbook.usage_log l on l.entity_id = b.id
left join meterbook.late_entry e on e.entity_id = l.entity_id and e.key = l.key
where b.kind = %(kind)s and b.external_id = %(external_id)s and coalesce(e.booked, l.period_id) = %(period)s
  and coalesce(e.stamped, l.belongs_to) is not null
group by 1 order by 1

-- name: find_role
-- What a user is to an entity: `self`, or their role in the organization.
select case when b.kind = 'user' and b.external_id = %(user)s then 'self' else
  (select m.role from meterbook.member m join meterbook.actor a on a.id = m.actor_id
   where m.organization_id = b.id and a.external_id = %(user)s and m.left_at is null) end
from meterbook.billing_entity b where b.kind = %(kind)s and b.external_id = %(external_id)s
