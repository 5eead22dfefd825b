-- name: read_admission
-- All that a check compares, from one snapshot.
select meterbook.admission_terms(actor => %(actor)s, workspace => %(workspace)s, at => %(at)s::timestamptz)

-- name: read_period_by_id
select meterbook.period_terms(%(entity_id)s::bigint, %(period_id)s::bigint, coalesce(%(at)s::timestamptz, clock_timestamp()), breakdowns => false)

-- name: begin
-- Makes psycopg begin the transaction of a connection that is not in autocommit.
select true

-- name: find_entity
select meterbook.known_entity(%(entity)s)

-- name: lock_period
select meterbook.lock_period(%(entity_id)s, %(period_id)s)

-- name: lock_and_read_period
select meterbook.lock_and_read_period(%(entity_id)s::bigint, %(period_id)s::bigint, %(at)s::timestamptz)

-- name: lock_and_fold_period
select meterbook.lock_and_fold_period(%(entity_id)s::bigint, %(period_id)s::bigint, %(at)s::timestamptz)

-- name: event_waits
select meterbook.event_waits(%(entity_id)s, %(period_id)s)

-- name: write_charge
select meterbook.write_charge(%(entity_id)s, %(period_id)s, %(kind)s, %(charged)s, %(credits)s, %(written_off)s, %(overage)s::numeric,
                              %(grant_ids)s::bigint[], %(grant_cents)s::bigint[], coalesce(%(at)s::timestamptz, clock_timestamp()))

-- name: grant_credit
select meterbook.grant_credit(%(entity_id)s, %(grant_key)s, %(cents)s::bigint, %(source)s, %(priority)s::integer, %(expires_at)s::timestamptz,
                              %(period_id)s::bigint, coalesce(%(at)s::timestamptz, clock_timestamp()))

-- name: find_first_grant
select g.entity_id, g.cents, g.source, g.priority, g.expires_at from meterbook.first_grant(%(grant_key)s) g

-- name: fence_period
select meterbook.fence_period(%(entity_id)s, %(period_id)s)

-- name: unfence_period
select meterbook.unfence_period(%(entity_id)s, %(period_id)s, %(reason)s, coalesce(%(at)s::timestamptz, clock_timestamp()))

-- name: fence_due_period
select meterbook.fence_due_period(%(entity_id)s, %(period_id)s, %(grace)s::interval, %(at)s::timestamptz)

-- name: charge_and_seal_period
select meterbook.charge_and_seal_period(
  %(entity_id)s, %(period_id)s, %(charged)s, %(credits)s, %(written_off)s, %(grant_ids)s::bigint[], %(grant_cents)s::bigint[], %(baseline)s::numeric,
  %(refresh)s::numeric, %(effective)s::numeric, %(overage)s::numeric, %(given_back)s::bigint, coalesce(%(at)s::timestamptz, clock_timestamp()))

-- name: list_corrections
select c.day, c.booked_here, c.amount, coalesce(c.negative, 0) from meterbook.corrections_of(%(entity_id)s, %(period_id)s) c where c.day is not null

-- name: find_correction
select c.of_day, c.of_period, c.booked, c.entity_id from meterbook.correction c where c.entity_id = meterbook.entity_id_of(%(entity)s) and c.key = %(key)s::uuid

-- name: sum_given_back
select coalesce(sum(g.cents), 0)::bigint from meterbook.credit_grant g where g.entity_id = %(entity_id)s and g.period_id = %(period_id)s

-- name: list_due_closes
-- Oldest first within an entity; a period is due when its end and the grace have passed, unless it is billed elsewhere still.
select p.entity_id, p.id from meterbook.billing_period p
where p.state <> 'closed' and p.kind in ('dated', 'free') and p.ends_at + %(grace)s::interval <= coalesce(%(at)s::timestamptz, clock_timestamp())
  and (%(entity_id)s::bigint is null or p.entity_id = %(entity_id)s) and not (p.entity_id = any (%(held_back)s::bigint[]))
  and not exists (select from meterbook.shadowed_entity s where s.entity_id = p.entity_id)
order by p.entity_id, p.ends_at, p.id limit %(rows)s

-- name: list_due_clocks
-- Entities whose periods have to be looked at, and actors whose payer has: the clock has passed.
select (select coalesce(array_agg(c.entity_id), '{}') from (select k.entity_id from meterbook.period_clock k
          where k.due_at <= coalesce(%(at)s::timestamptz, clock_timestamp()) order by k.entity_id limit %(rows)s) c),
       (select coalesce(array_agg(a.id), '{}') from (select x.id from meterbook.actor x
          where x.payer_until <= coalesce(%(at)s::timestamptz, clock_timestamp()) and x.payer_id is not null order by x.id limit %(rows)s) a)

-- name: pass_clocks
select meterbook.pass_clocks(%(entities)s::bigint[], %(actors)s::bigint[], coalesce(%(at)s::timestamptz, clock_timestamp()))

-- name: list_moved
-- Entities to look at for thresholds and alerts, by pages.
select m.entity_id, array_agg(m.id order by m.id) from meterbook.moved_entity m
where m.entity_id > %(after)s and m.since <= coalesce(%(at)s::timestamptz, clock_timestamp())
group by m.entity_id order by m.entity_id limit %(rows)s

-- name: forget_moved
select meterbook.forget_moved(%(entity_id)s, %(ids)s::bigint[])

-- name: claim_marks
-- Marks of the limit that nobody has told yet; each is claimed by one.
select meterbook.claim_marks(%(entity_id)s, %(period_id)s, %(marks)s::smallint[], %(told)s::smallint, %(payload)s::jsonb,
                             coalesce(%(at)s::timestamptz, clock_timestamp()))

-- name: arm_marks
select meterbook.arm_marks(%(entity_id)s, %(period_id)s)

-- name: set_limit
select meterbook.set_limit(%(entity_id)s, %(stored)s::numeric, %(by)s, coalesce(%(at)s::timestamptz, clock_timestamp()))

-- name: set_member_cap
select meterbook.set_member_cap(%(organization)s, %(user)s, %(cap)s::numeric)

-- name: list_member_caps
-- The members of an organization, with and without a cap.
select coalesce(a.external_id, '#' || a.id), m.role, c.cap
from meterbook.member m join meterbook.actor a on a.id = m.actor_id
left join meterbook.member_cap c on c.organization_id = m.organization_id and c.actor_id = m.actor_id
where m.organization_id = %(entity_id)s and m.left_at is null order by 1

-- name: set_block
select meterbook.set_block(%(entity_id)s, %(reason)s, %(reference)s, %(blocked)s, coalesce(%(at)s::timestamptz, clock_timestamp()))

-- name: set_baseline
select meterbook.set_baseline(%(entity_id)s, %(period_id)s, %(amount)s::numeric, %(days)s::integer[], %(amounts)s::numeric[], %(at)s::timestamptz)

-- name: list_charges
-- What was billed, oldest first, of one period or of all.
select c.id, c.period_id, c.kind, c.charged_cents, c.credits_cents, c.written_off_cents, c.overage, c.at
from meterbook.charge c where c.entity_id = %(entity_id)s and (%(period_id)s::bigint is null or c.period_id = %(period_id)s) order by c.id

-- name: list_spent
-- Which grant paid how much of which of a period's charges.
select s.charge_id, g.grant_key, s.cents
from meterbook.charge c
join meterbook.credit_spend s on s.entity_id = c.entity_id and s.charge_id = c.id
join meterbook.credit_grant g on g.entity_id = s.entity_id and g.id = s.grant_id
where c.entity_id = %(entity_id)s and c.period_id = %(period_id)s order by s.id

-- name: list_grants
select g.grant_key, g.cents, g.remaining, g.source, g.priority, g.expires_at, g.granted_at from meterbook.grants_of(%(entity_id)s) g order by g.id

-- name: list_outbox
-- Oldest first, with the name that the entity has now.
select o.id, o.kind, o.payload, o.created_at, e.kind || ':' || coalesce(e.external_id, '#' || e.id)
from meterbook.outbox o join meterbook.billing_entity e on e.id = o.entity_id
where %(entity_id)s::bigint is null or o.entity_id = %(entity_id)s order by o.id

-- name: list_deliveries
-- Newest first.
select o.id, o.kind, e.kind || ':' || coalesce(e.external_id, '#' || e.id), o.payload, o.created_at, d.state, d.attempts, d.due_at, d.step, d.invoice, d.note
from meterbook.outbox o join meterbook.outbox_delivery d on d.outbox_id = o.id join meterbook.billing_entity e on e.id = o.entity_id
where (%(entity_id)s::bigint is null or o.entity_id = %(entity_id)s) and (%(state)s::text is null or d.state = %(state)s)
order by o.id desc limit %(rows)s
