-- name: attach
-- What a mapping says, as a view of this session alone: every other statement here reads their tables through these.
create temporary view {view} as select {columns} from {source}
where ({condition}
)

-- name: detach
drop view if exists pg_temp.{view}

-- name: try_expression
-- Whether it can be computed at all, and of which type it is.
select ({expression}
) from {source}
limit 0

-- name: sound_time
-- A time of theirs, or null where no calendar has it: infinity, or a year beyond 9999.
case when ({column}
) between '0001-01-02' and '9999-12-30' then ({column}
) end

-- name: list_columns
-- Of a table of theirs, for an error that says what there is.
select a.attname from pg_catalog.pg_attribute a where a.attrelid = to_regclass(%(source)s) and a.attnum > 0 and not a.attisdropped order by a.attnum

-- name: lock_cutover
-- One step of the cutover at a time; a step that died has let go of it.
select pg_try_advisory_lock(5067, 13)

-- name: unlock_cutover
select pg_advisory_unlock(5067, 13)

-- name: read_cutover
select c.mapping, c.feed, coalesce(%(at)s::timestamptz, clock_timestamp()) as at from (select) as always left join meterbook.cutover c on true

-- name: begin_cutover
-- Which mapping all steps use, from the first round on.
insert into meterbook.cutover (mapping, feed, began_at) values (%(mapping)s, %(feed)s, coalesce(%(at)s::timestamptz, clock_timestamp()))
on conflict (id) do update set mapping = excluded.mapping, feed = excluded.feed, is_whole = false

-- name: end_round
update meterbook.cutover c set is_whole = true

-- name: is_whole
select c.is_whole from meterbook.cutover c

-- name: has_begun
-- Whether something was switched, or is being compared, by the mapping that is noted.
select exists (select from meterbook.cutover_entity e where e.state in ('shadow', 'switched'))

-- name: list_people
-- One page of their users: the counters, and the membership (the first, if their tables have several).
select c.user_id, coalesce(c.running, 0) as running, coalesce(c.last, 0) as last, coalesce(c.billed, 0) as billed, coalesce(c.credits, 0) as credits,
       c.usage_limit, c.blocked, coalesce(c.kept, 0) as kept, c.kept_at, m.organization_id, m.role, m.joined_at, coalesce(m.memberships, 0) as memberships,
       (select count(*) from pg_temp.legacy_counter x where x.user_id = c.user_id) as copies,
       m.organization_id is null or m.organization_id in (
         select w.organization_id from pg_temp.legacy_member w join pg_temp.legacy_organization o on o.id = w.organization_id where w.role = 'owner') as organization_is_sound
from pg_temp.legacy_counter c
left join lateral (
  select (array_agg(x.organization_id order by x.joined_at, x.organization_id))[1] as organization_id,
         (array_agg(x.role order by x.joined_at, x.organization_id))[1] as role,
         min(x.joined_at) as joined_at, count(*) as memberships
  from pg_temp.legacy_member x where x.user_id = c.user_id) m on true
where c.user_id > %(after)s and (%(users)s::text[] is null or c.user_id = any (%(users)s)) order by c.user_id limit %(rows)s

-- name: list_subscriptions
-- Those of these owners that entitle to something, or whose status is no word that is known.
select s.id, s.owner, s.plan, s.status, s.starts_at, s.ends_at, s.seats, s.interval, coalesce(s.cancel_at_period_end, false) as cancel_at_period_end,
       s.stripe_customer, s.stripe_subscription
from pg_temp.legacy_subscription s where s.owner = any (%(owners)s::text[]) and not coalesce(s.status = any (%(ended)s::text[]), false) order by s.owner, s.id

-- name: find_odd_owner
-- What an owner of a subscription must not look like.
select s.owner from pg_temp.legacy_subscription s
where s.owner !~ '^(user|organization):.' and not coalesce(s.status = any (%(ended)s::text[]), false) limit 1

-- name: list_ownerless
-- Subscriptions that are nobody's.
select s.id from pg_temp.legacy_subscription s where s.owner is null and not coalesce(s.status = any (%(ended)s::text[]), false) order by s.id limit 1000

-- name: count_nameless
-- Counters of nobody.
select count(*) as counters, coalesce(sum(c.running), 0) as amount from pg_temp.legacy_counter c where c.user_id is null or c.user_id = ''

-- name: list_organizations
-- A page of their organizations, with the owner.
select o.id, o.usage_limit, coalesce(o.credits, 0) as credits, coalesce(o.departed, 0) as departed,
       (select min(m.user_id) from pg_temp.legacy_member m where m.organization_id = o.id and m.role = 'owner') as owner
from pg_temp.legacy_organization o where o.id > %(after)s order by o.id limit %(rows)s

-- name: sum_audit_days
-- What the audit log says of each counter's usage, by the days of its period; rows that the ledger has under their own keys left out.
select p.name, meterbook.day_in(a.occurred_at, p.starts_at, p.ends_at) as day, sum(a.amount) as amount
from unnest(%(names)s::text[], %(users)s::text[], %(entities)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(since)s::timestamptz[],
            %(until)s::timestamptz[], %(earliest)s, %(latest)s) p(name, user_id, entity, starts_at, ends_at, since, until, earliest, latest)
join pg_temp.legacy_audit a on a.user_id = p.user_id and a.indexed_at >= p.earliest and a.indexed_at < p.latest
  and a.occurred_at >= p.since and a.occurred_at < p.until
where coalesce(a.payer = p.entity, true) and a.amount > 0 and a.amount < 'Infinity'
  and not exists (select from meterbook.cutover_row r where r.audit_id = a.id and r.amount > 0)
group by 1, 2

-- name: sum_departed_days
-- What the audit log says that an organization paid for people who were no members of it when it is read, or not then: by the days of its period.
select meterbook.day_in(a.occurred_at, %(starts)s::timestamptz, %(ends)s::timestamptz) as day, sum(a.amount) as amount
from pg_temp.legacy_audit a
where a.payer = %(entity)s and a.indexed_at >= %(earliest)s and a.indexed_at < %(latest)s and a.occurred_at >= %(starts)s::timestamptz and a.occurred_at < %(until)s::timestamptz
  and a.amount > 0 and a.amount < 'Infinity'
  and not exists (select from pg_temp.legacy_member m where m.user_id = a.user_id and 'organization:' || m.organization_id = %(entity)s
                  and coalesce(m.joined_at, '-infinity') <= a.occurred_at)
  and not exists (select from meterbook.cutover_row r where r.audit_id = a.id and r.amount > 0)
group by 1

-- name: explain_audit
-- How PostgreSQL would find one user's rows of late.
explain (format json) select a.id from pg_temp.legacy_audit a where a.user_id = 'user' and a.indexed_at >= %(since)s

-- name: count_orphans
-- Audit rows of this window by users without a counter: nobody counted them.
select count(*) as entries, coalesce(sum(a.amount) filter (where a.amount < 'Infinity'), 0) as amount, count(distinct a.user_id) as users
from pg_temp.legacy_audit a
where a.indexed_at >= %(since)s and not exists (select from pg_temp.legacy_counter c where c.user_id = a.user_id)

-- name: list_changed_organizations
-- What is not known here yet, or has another owner than when it was told.
select o.id, owner.user_id as owner, md5(coalesce(owner.user_id, '')) as digest, was.digest is not null as is_known
from pg_temp.legacy_organization o
left join lateral (select min(m.user_id) as user_id from pg_temp.legacy_member m where m.organization_id = o.id and m.role = 'owner') owner on true
left join meterbook.cutover_mirror was on was.kind = 'organization' and was.id = o.id
where o.id > %(after)s and was.digest is distinct from md5(coalesce(owner.user_id, '')) order by o.id limit %(rows)s

-- name: list_changed_members
-- Who joined, left, or has another role since it was told. organization_id null: left.
select coalesce(m.user_id, was.id) as id, m.organization_id, m.role, was.digest, md5(concat_ws(',', m.organization_id, m.role)) as digest_now
from (select distinct on (x.user_id) x.* from pg_temp.legacy_member x order by x.user_id, x.joined_at, x.organization_id) m
full join (select * from meterbook.cutover_mirror w where w.kind = 'member') was on was.id = m.user_id
where coalesce(m.user_id, was.id) > %(after)s
  and was.digest is distinct from case when m.user_id is not null then md5(concat_ws(',', m.organization_id, m.role)) end
order by 1 limit %(rows)s

-- name: organization_of
-- Where a user is a member by now, in this ledger.
select e.external_id from meterbook.member m join meterbook.actor a on a.id = m.actor_id join meterbook.billing_entity e on e.id = m.organization_id
where a.external_id = %(user)s and m.left_at is null

-- name: list_changed_subscriptions
-- Entitled ones, and those of a status that nobody knows, that are new or changed; known ones that are not entitled any more.
select s.id, s.owner, s.plan, s.status, s.starts_at, s.ends_at, s.seats, s.interval, coalesce(s.cancel_at_period_end, false) as cancel_at_period_end,
       s.stripe_customer, s.stripe_subscription, md5(s::text) as digest
from pg_temp.legacy_subscription s
left join meterbook.cutover_mirror was on was.kind = 'subscription' and was.id = s.id
where s.id > %(after)s and was.digest is distinct from md5(s::text) and (not coalesce(s.status = any (%(ended)s::text[]), false) or was.digest is not null)
order by s.id limit %(rows)s

-- name: note_mirrored
insert into meterbook.cutover_mirror (kind, id, digest) values (%(kind)s, %(id)s, %(digest)s) on conflict (kind, id) do update set digest = excluded.digest

-- name: forget_mirrored
delete from meterbook.cutover_mirror m where m.kind = %(kind)s and m.id = %(id)s

-- name: note_refusal
-- The last reason is the one that is shown.
insert into meterbook.cutover_refusal (subject, reason, noted_at) values (%(subject)s, %(reason)s, coalesce(%(at)s::timestamptz, clock_timestamp()))
on conflict (subject) do update set reason = excluded.reason

-- name: forget_refusal
delete from meterbook.cutover_refusal r where r.subject = %(subject)s

-- name: list_refusals
select r.subject, r.reason from meterbook.cutover_refusal r order by r.subject limit %(rows)s

-- name: is_refused
select exists (select from meterbook.cutover_refusal r where r.subject = %(subject)s)

-- name: list_stale_people
-- Users whose counters have no place here yet, or are somebody else's to pay by now, or whose payer's period is over; those already switched
-- are ours alone, and move with nothing of theirs.
select c.user_id, k.entity_id as was_entity, k.period_id as was_period,
       coalesce(was.state = 'shadow' and a.payer_id = k.entity_id, false) as has_moved_on, coalesce(p.ends_at <= %(at)s::timestamptz, false) as has_ended,
       coalesce(c.running < k.seen or c.running = 0, false) as has_begun_again
from pg_temp.legacy_counter c
left join meterbook.cutover_counter k on k.name = 'user:' || c.user_id
left join meterbook.cutover_entity was on was.entity_id = k.entity_id
left join meterbook.billing_period p on p.entity_id = k.entity_id and p.id = k.period_id
left join meterbook.actor a on a.external_id = c.user_id
left join meterbook.period_clock clock on clock.entity_id = a.payer_id
left join meterbook.cutover_counter kept on kept.name = 'kept:' || c.user_id
where c.user_id > %(after)s and coalesce(was.state, 'rolled_back') in ('shadow', 'rolled_back')
  and (k.name is null or k.is_over or a.payer_id is distinct from k.entity_id or clock.home_id is distinct from k.period_id
       or clock.due_at <= %(at)s::timestamptz or (c.kept > 0 and kept.name is null and a.payer_id <> meterbook.entity_id_of('user:' || c.user_id)))
order by c.user_id limit %(rows)s

-- name: list_places
-- Whose each user's counters are now: the payer of the running one, the user of the kept one; with the running period of each. unexplained: what the
-- ledger has of a user who was never compared, under other keys than their audit rows'.
select a.external_id as user_id, payer.id as payer_id, payer.kind || ':' || payer.external_id as payer, pay.home_id as payer_period,
       own.id as own_id, mine.home_id as own_period,
       case when held.amount > 0 and not exists (select from meterbook.cutover_entity e where e.entity_id = payer.id)
            then held.amount - coalesce((select sum(n.amount) from pg_temp.legacy_audit x join meterbook.event_key n on n.key = meterbook.event_key('legacy:' || x.id)
                                         where x.user_id = a.external_id and n.entity_id = payer.id and n.period_id = pay.home_id), 0)
            else 0 end as unexplained
from meterbook.actor a
join meterbook.billing_entity payer on payer.id = a.payer_id
join meterbook.period_clock pay on pay.entity_id = payer.id
join meterbook.billing_entity own on own.kind = 'user' and own.external_id = a.external_id
left join meterbook.period_clock mine on mine.entity_id = own.id
cross join lateral (select coalesce(meterbook.sum_held(payer.id, pay.home_id, a.external_id, %(at)s::timestamptz), 0) as amount) held
where a.external_id = any (%(users)s::text[])

-- name: list_organization_places
-- Organizations of theirs that have members here or usage of departed ones, with their running period.
select o.id, e.id as entity_id, clock.home_id as period_id, coalesce(o.departed, 0) as departed
from pg_temp.legacy_organization o
join meterbook.billing_entity e on e.kind = 'organization' and e.external_id = o.id
join meterbook.period_clock clock on clock.entity_id = e.id
left join meterbook.cutover_counter k on k.name = 'departed:' || o.id
left join meterbook.cutover_entity was on was.entity_id = e.id
where (k.name is null or (clock.home_id is distinct from k.period_id and was.state = 'shadow') or k.is_over)
  and coalesce(was.state, 'rolled_back') in ('shadow', 'rolled_back') and o.id > %(after)s
  and not exists (select from meterbook.cutover_refusal r where r.subject = 'organization:' || o.id)
order by o.id limit %(rows)s

-- name: begin_counters
-- An epoch of these counters: their values, and which audit rows of late are in them already, from one snapshot. One that goes on counting elsewhere
-- leaves its rows in the ledger where they are: they are held there. One that comes to an entity which is switched is no baseline: it is late usage.
with place as (
  select * from unnest(%(names)s::text[], %(kinds)s::text[], %(owners)s::text[], %(entities)s::bigint[], %(periods)s::bigint[], %(since)s)
    p(name, kind, owner, entity_id, period_id, since)),
placed as (
  select p.*, coalesce((select e.state in ('switched', 'retired') from meterbook.cutover_entity e where e.entity_id = p.entity_id), false) as is_late from place p),
valued as materialized (
  select p.*, coalesce(case p.kind when 'running' then c.running when 'kept' then c.kept else o.departed end, 0) as value, coalesce(c.last, 0) as last,
         coalesce(k.epoch, 0) + 1 as epoch,
         case when p.is_late then 0
              when p.kind = 'departed' then meterbook.sum_departed(p.entity_id, p.period_id, %(at)s::timestamptz)
              else coalesce(meterbook.sum_held(p.entity_id, p.period_id, p.owner, %(at)s::timestamptz), 0) end
         + case when k.name is not null and (k.entity_id, k.period_id) <> (p.entity_id, p.period_id) and coalesce(c.running, 0) >= k.seen
                then coalesce((select sum(r.amount) from meterbook.cutover_row r where r.counter = k.name and r.epoch = k.epoch), 0) else 0 end as held,
         coalesce((select max(f.id) from meterbook.cutover_fall f where p.kind = 'running' and f.owner = p.owner), 0) as fall_id
  from placed p
  left join pg_temp.legacy_counter c on p.kind <> 'departed' and c.user_id = p.owner
  left join pg_temp.legacy_organization o on p.kind = 'departed' and o.id = p.owner
  left join meterbook.cutover_counter k on k.name = p.name),
counted as (
  insert into meterbook.cutover_row (audit_id, counter, epoch, amount, is_held)
  select a.id, v.name, v.epoch, 0, exists (select from meterbook.event_key n where n.key = meterbook.event_key('legacy:' || a.id)) from valued v join pg_temp.legacy_audit a on a.user_id = v.owner and a.indexed_at >= v.since
  where v.kind = 'running' and not v.is_late on conflict (audit_id) do nothing),
begun as (
  insert into meterbook.cutover_counter (name, kind, owner, entity_id, period_id, epoch, base, held, seen, seen_last, fall_id, looked_at)
  select v.name, v.kind, v.owner, v.entity_id, v.period_id, v.epoch, case when v.is_late then 0 else greatest(v.value - v.held, 0) end, v.held,
         case when v.is_late then least(v.held, v.value) else v.value end, v.last, v.fall_id, %(at)s::timestamptz
  from valued v order by v.name
  on conflict (name) do update set (entity_id, period_id, epoch, base, held, seen, seen_last, fall_id, is_over, moved, absorbed, absorptions, moved_at, looked_at, note) =
    (excluded.entity_id, excluded.period_id, excluded.epoch, excluded.base, excluded.held, excluded.seen, excluded.seen_last, excluded.fall_id, false, 0, 0, 0, null,
     excluded.looked_at, '')
  returning name, entity_id)
select distinct b.entity_id from begun b

-- name: list_departed
-- The counters of departed members of these entities, where they are organizations.
select k.name, k.kind, k.owner, k.entity_id, k.period_id from meterbook.cutover_counter k
join meterbook.cutover_entity e on e.entity_id = k.entity_id and e.state = 'shadow'
where k.entity_id = any (%(entities)s::bigint[]) and k.kind = 'departed' order by k.name

-- name: begin_entity
-- Compared in this period from now on; one that was switched stays so.
with forgotten as (
  delete from meterbook.cutover_return r where r.entity_id = %(entity_id)s
  and exists (select from meterbook.cutover_entity e where e.entity_id = %(entity_id)s and e.state = 'rolled_back'))
insert into meterbook.cutover_entity (entity_id, state, period_id, began_at) values (%(entity_id)s, 'shadow', %(period_id)s, %(at)s::timestamptz)
on conflict (entity_id) do update set state = 'shadow', period_id = excluded.period_id, agreed_since = null, switched_at = null, note = '',
  began_at = case when cutover_entity.state = 'rolled_back' then excluded.began_at else cutover_entity.began_at end
where cutover_entity.state in ('shadow', 'rolled_back') and (cutover_entity.state, cutover_entity.period_id) is distinct from ('shadow', excluded.period_id)

-- name: shadow_owner
-- Before anything about it is told here: it is billed elsewhere, unless it was switched.
insert into meterbook.shadowed_entity (entity_id, since)
select e.id, coalesce(%(at)s::timestamptz, clock_timestamp()) from (select meterbook.entity_id_of(%(entity)s) as id) e
where e.id is not null and not exists (select from meterbook.cutover_entity c where c.entity_id = e.id and c.state in ('switched', 'retired'))
on conflict do nothing

-- name: list_bases
-- An entity's counters of a period, with what says which audit rows date them.
select k.name, k.kind, k.owner, k.base, b.kind || ':' || b.external_id as entity, b.kind = 'organization' as is_pooled, p.starts_at, p.ends_at,
       p.kind = 'dated' and p.refresh_per_day > 0 as refreshes,
       (select min(m.joined_at) from pg_temp.legacy_member m where b.kind = 'organization' and m.user_id = k.owner and m.organization_id = b.external_id) as joined_at,
       case when k.kind = 'kept' then coalesce((select c.kept_at from pg_temp.legacy_counter c where c.user_id = k.owner),
         (select min(m.joined_at) from pg_temp.legacy_member m where m.user_id = k.owner)) end as kept_until
from meterbook.cutover_counter k
join meterbook.billing_entity b on b.id = k.entity_id
join meterbook.billing_period p on p.entity_id = k.entity_id and p.id = k.period_id
where k.entity_id = %(entity_id)s and k.period_id = %(period_id)s order by k.name

-- name: list_bare
-- Entities that are told about and have no counter at all.
select s.entity_id, clock.home_id as period_id from meterbook.shadowed_entity s
join meterbook.period_clock clock on clock.entity_id = s.entity_id
where not exists (select from meterbook.cutover_entity e where e.entity_id = s.entity_id and e.state = 'shadow')
  and not exists (select from meterbook.billing_entity b join meterbook.cutover_refusal r on r.subject = b.kind || ':' || b.external_id where b.id = s.entity_id)
  and not exists (select from meterbook.billing_entity b join pg_temp.legacy_counter c on c.user_id = b.external_id where b.id = s.entity_id and b.kind = 'user')
order by s.entity_id limit %(rows)s

-- name: clear_refusals
delete from meterbook.cutover_refusal

-- name: shadow_entity
-- Not one that is switched: that is billed here.
insert into meterbook.shadowed_entity (entity_id, since) select %(entity_id)s::bigint, %(at)s::timestamptz
where not exists (select from meterbook.cutover_entity e where e.entity_id = %(entity_id)s::bigint and e.state in ('switched', 'retired')) on conflict do nothing

-- name: unshadow_entity
delete from meterbook.shadowed_entity s where s.entity_id = %(entity_id)s

-- name: find_state
-- How far an entity is, and the last of its periods that shadow compared.
select e.state, e.period_id, e.difference, e.began_at, e.switched_at, p.state as period_state, p.ends_at, p.kind as period_kind
from meterbook.cutover_entity e join meterbook.billing_period p on p.entity_id = e.entity_id and p.id = e.period_id where e.entity_id = %(entity_id)s for update of e

-- name: note_entity
update meterbook.cutover_entity e set note = %(note)s where e.entity_id = %(entity_id)s and e.note <> %(note)s

-- name: lock_fold
select meterbook.lock_fold()

-- name: leave_to_history
select meterbook.leave_to_history(%(entity_id)s, %(period_id)s)

-- name: list_entities
-- A page of entities in one of these states.
select e.entity_id, e.state, e.period_id, b.kind || ':' || b.external_id as entity, p.state as period_state, e.agreed_since, e.note
from meterbook.cutover_entity e
join meterbook.billing_entity b on b.id = e.entity_id
join meterbook.billing_period p on p.entity_id = e.entity_id and p.id = e.period_id
where e.state = any (%(states)s::text[]) and e.entity_id > %(after)s and (%(entity)s::text is null or b.kind || ':' || b.external_id = %(entity)s)
order by e.entity_id limit %(rows)s

-- name: list_moving
-- Entities of a state with a counter that says something else than when it was read, or moved a moment ago, or that differ.
select distinct k.entity_id
from meterbook.cutover_counter k
join meterbook.cutover_entity e on e.entity_id = k.entity_id and e.state = %(state)s
left join pg_temp.legacy_counter c on k.kind <> 'departed' and c.user_id = k.owner
left join pg_temp.legacy_organization o on k.kind = 'departed' and o.id = k.owner
where (coalesce(case k.kind when 'running' then c.running when 'kept' then c.kept else o.departed end, 0), coalesce(c.last, 0)) is distinct from (k.seen, k.seen_last)
   or (k.kind = 'running' and exists (select from meterbook.cutover_fall f where f.owner = k.owner and f.id > k.fall_id)) or k.moved_at > %(at)s::timestamptz - make_interval(secs => %(overlap_s)s) or e.difference <> 0 or k.moved <> k.absorbed
order by 1

-- name: list_looks
-- Since when the rows of each of these entities' counters have to be looked at.
select k.name, k.looked_at - make_interval(secs => %(overlap_s)s) as since from meterbook.cutover_counter k where k.entity_id = any (%(entities)s::bigint[])

-- name: read_counters
-- These counters and the audit rows that nobody has looked at, from one snapshot: what the rows add is in the counters, or on its way there. Rows
-- that are in the baseline come again when a writer of both has recorded them since. Who does not feed asks for recorded rows alone.
select k.entity_id, k.period_id, k.epoch, k.name, k.kind, k.owner, k.base, k.held, k.seen, k.seen_last, k.moved, k.absorbed, k.absorptions,
       coalesce(case k.kind when 'running' then c.running when 'kept' then c.kept else o.departed end, 0) as value, coalesce(c.last, 0) as last,
       coalesce((select sum(r.amount) from meterbook.cutover_row r where r.counter = k.name and r.epoch = k.epoch and r.is_switched = %(switched)s), 0) as rows,
       fresh.rows as fresh, fell.falls, coalesce(fell.last_id, k.fall_id) as last_fall
from unnest(%(names)s::text[], %(since)s) look(name, since)
join meterbook.cutover_counter k on k.name = look.name
left join pg_temp.legacy_counter c on k.kind <> 'departed' and c.user_id = k.owner
left join pg_temp.legacy_organization o on k.kind = 'departed' and o.id = k.owner
left join lateral (
  select jsonb_agg(jsonb_build_object('id', a.id, 'in_base', a.in_base, 'amount', a.amount::text, 'occurred_at', a.occurred_at, 'source', a.source, 'description', a.description,
                                      'category', a.category, 'workflow', a.workflow, 'execution', a.execution, 'recorded', n.amount::text)) as rows
  from (select x.*, known.audit_id is not null as in_base
        from pg_temp.legacy_audit x left join meterbook.cutover_row known on known.audit_id = x.id
        where k.kind = 'running' and x.user_id = k.owner and x.indexed_at >= look.since
          and (known.audit_id is null or (known.amount = 0 and not known.is_held and known.refused is null))
          and ((known.audit_id is null and %(feeds)s)
               or exists (select from meterbook.event_key n where n.key = meterbook.event_key('legacy:' || x.id))) limit %(rows_max)s) a
  left join meterbook.event_key n on n.key = meterbook.event_key('legacy:' || a.id)) fresh on true
left join lateral (
  select jsonb_agg(jsonb_build_array(f.was::text, f.is_now::text) order by f.id) as falls, max(f.id) as last_id
  from meterbook.cutover_fall f where k.kind = 'running' and f.owner = k.owner and f.id > k.fall_id) fell on true
order by k.entity_id, k.name

-- name: find_counter_columns
-- The table of the counters, and its columns as they are called there; null: the mapping names no table, or no bare column.
select c.oid::regclass::text as source, n.nspname as schema, c.relname as name,
       (select a.attname from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and %(user_id)s::text in (a.attname::text, quote_ident(a.attname))) as user_id,
       (select a.attname from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and %(running)s::text in (a.attname::text, quote_ident(a.attname))) as running
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass(%(source)s::text) and c.relkind in ('r', 'p')

-- name: create_fall_trigger
-- A condition alone for every charge; the function runs when the counter falls.
create trigger meterbook_counter_fell after update on {table} for each row when (coalesce(new.{running}, 0) < coalesce(old.{running}, 0))
execute function meterbook.note_fall({user}, {counter})

-- name: create_deletion_trigger
create trigger meterbook_counter_went after delete on {table} for each row when (coalesce(old.{running}, 0) > 0) execute function meterbook.note_fall({user}, {counter})

-- name: drop_fall_trigger
drop trigger if exists meterbook_counter_fell on {table}

-- name: drop_deletion_trigger
drop trigger if exists meterbook_counter_went on {table}

-- name: has_trigger
-- Whether falls of this table's counters are noted.
select exists (select from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid join pg_catalog.pg_namespace n on n.oid = p.pronamespace
               where t.tgrelid = to_regclass(%(source)s::text) and t.tgname = 'meterbook_counter_fell' and n.nspname = 'meterbook' and t.tgenabled <> 'D')

-- name: note_rows
-- Rows that the ledger has under their keys, or never will.
insert into meterbook.cutover_row (audit_id, counter, epoch, amount, day, is_switched, refused)
select u.id, u.counter, u.epoch, u.amount, u.day, %(switched)s, u.refused
from unnest(%(ids)s::text[], %(counters)s::text[], %(epochs)s::integer[], %(amounts)s::numeric[], %(days)s::integer[], %(refused)s::text[])
  u(id, counter, epoch, amount, day, refused)
on conflict (audit_id) do update set (counter, epoch, amount, is_switched) = (excluded.counter, excluded.epoch, excluded.amount, excluded.is_switched)
where cutover_row.amount = 0

-- name: lower_bases
-- What is in the ledger by now is in no baseline.
update meterbook.cutover_counter k set base = k.base - u.amount from unnest(%(names)s::text[], %(amounts)s::numeric[]) u(name, amount) where k.name = u.name

-- name: note_looks
-- Until the switch: what the counters said when the ledger was last fed.
update meterbook.cutover_counter k set seen = u.value, seen_last = u.last, fall_id = u.fall_id, looked_at = %(at)s::timestamptz,
  moved_at = case when (k.seen, k.seen_last) is distinct from (u.value, u.last) then %(at)s::timestamptz else k.moved_at end
from unnest(%(names)s::text[], %(values)s::numeric[], %(lasts)s::numeric[], %(falls)s::bigint[]) u(name, value, last, fall_id) where k.name = u.name

-- name: note_difference
-- By how much entities differ, and since when they do not.
update meterbook.cutover_entity e set difference = u.difference,
  agreed_since = case when u.difference = 0 then coalesce(e.agreed_since, %(at)s::timestamptz) end
from unnest(%(entities)s::bigint[], %(differences)s::numeric[]) u(entity_id, difference) where e.entity_id = u.entity_id

-- name: note_rest
-- Who was not looked at because nothing of it moved, and had agreed: still agrees.
update meterbook.cutover_entity e set agreed_since = %(at)s::timestamptz
where e.entity_id = any (%(entities)s::bigint[]) and e.state = 'shadow' and e.difference = 0 and e.agreed_since is null

-- name: sum_agreement
-- How many entities are compared, how many differ or wait, and since when the last of them has agreed.
select count(*) as entities, count(*) filter (where e.difference <> 0) as differing, count(*) filter (where e.note <> '') as waiting,
       case when bool_and(e.agreed_since is not null) then max(e.agreed_since) end as since
from meterbook.cutover_entity e where e.state = 'shadow'

-- name: list_compared
-- Counters against the ledger, a page of entities: until the switch as they were when the ledger was last fed, afterwards as they are.
select b.kind || ':' || b.external_id as entity, e.state, e.period_id as period, sum(counted.value) as counters,
       meterbook.sum_period(e.entity_id, e.period_id, %(at)s::timestamptz) as ledger,
       coalesce((select x.amount from meterbook.period_baseline x where x.entity_id = e.entity_id and x.period_id = e.period_id), 0) as baseline,
       sum(counted.unfed) as unfed, sum(counted.ledger) as accounted, sum(counted.refused) as refused, e.agreed_since, e.note, e.entity_id
from meterbook.cutover_entity e
join meterbook.billing_entity b on b.id = e.entity_id
join lateral (
  select v.value, v.value - k.base - k.held - r.rows as unfed, k.base + k.held + r.rows as ledger, r.refused
  from meterbook.cutover_counter k
  left join pg_temp.legacy_counter c on k.kind <> 'departed' and c.user_id = k.owner
  left join pg_temp.legacy_organization o on k.kind = 'departed' and o.id = k.owner
  cross join lateral (select case when e.state = 'shadow' then k.seen
                      else coalesce(case k.kind when 'running' then c.running when 'kept' then c.kept else o.departed end, 0) end as value) v
  cross join lateral (select coalesce(sum(x.amount), 0) as rows, coalesce(sum(a.amount) filter (where x.refused is not null and a.amount > '-Infinity' and a.amount < 'Infinity'), 0) as refused
                      from meterbook.cutover_row x left join pg_temp.legacy_audit a on x.refused is not null and a.id = x.audit_id
                      where x.counter = k.name and x.epoch = k.epoch) r
  where k.entity_id = e.entity_id) counted on true
where e.entity_id > %(after)s and e.state = any (%(states)s::text[]) and (%(entity)s::text is null or b.kind || ':' || b.external_id = %(entity)s)
group by e.entity_id, b.kind, b.external_id, e.state, e.period_id, e.agreed_since, e.note order by e.entity_id limit %(rows)s

-- name: note_bases
-- What each counter puts into the baseline; what it does from now on is late usage.
update meterbook.cutover_counter k set base = u.base, seen = u.value, seen_last = u.last, fall_id = u.fall_id, moved = 0, absorbed = 0, looked_at = %(at)s::timestamptz
from unnest(%(names)s::text[], %(bases)s::numeric[], %(values)s::numeric[], %(lasts)s::numeric[], %(falls)s::bigint[]) u(name, base, value, last, fall_id) where k.name = u.name

-- name: set_baseline
select meterbook.set_baseline(%(entity_id)s::bigint, %(period_id)s::bigint, %(amount)s::numeric, %(days)s::integer[], %(amounts)s::numeric[], %(at)s::timestamptz)

-- name: read_carried
-- What goes over with an entity besides usage. `owner`: of an organization, whose counter row has what is billed and blocked of it.
select coalesce(c.billed, 0) as billed, case when %(organization)s::text is null then coalesce(c.credits, 0) else coalesce(o.credits, 0) end as credits,
       case when %(organization)s::text is null then c.usage_limit else o.usage_limit end as usage_limit, c.blocked
from (select) as always
left join pg_temp.legacy_organization o on o.id = %(organization)s
left join pg_temp.legacy_counter c on c.user_id = coalesce(%(user)s,
  (select min(m.user_id) from pg_temp.legacy_member m where m.organization_id = %(organization)s and m.role = 'owner'))

-- name: find_pool
-- Of a user for whom an organization pays: whether they own it, and whether its owner is blocked.
select m.role = 'owner' as is_owner,
       exists (select from pg_temp.legacy_member x join pg_temp.legacy_counter c on c.user_id = x.user_id
               where x.organization_id = m.organization_id and x.role = 'owner' and c.blocked is not null) as owner_blocked
from pg_temp.legacy_member m join meterbook.actor a on a.external_id = m.user_id join meterbook.billing_entity e on e.id = a.payer_id
where m.user_id = %(user)s and e.kind = 'organization' and e.external_id = m.organization_id

-- name: home_of
select c.home_id from meterbook.period_clock c where c.entity_id = %(entity_id)s

-- name: read_spendable
-- What was billed here of this period, and what is left of the entity's credits.
select coalesce((select sum(c.charged_cents + c.credits_cents) from meterbook.charge c where c.entity_id = %(entity_id)s and c.period_id = %(period_id)s), 0)::bigint as billed_cents,
       coalesce((select sum(g.remaining) from meterbook.grants_of(%(entity_id)s) g where g.remaining > 0 and (g.expires_at is null or g.expires_at > %(at)s::timestamptz)), 0)::bigint as credits_cents

-- name: carry_billed
select meterbook.carry_billed(%(entity_id)s, %(period_id)s, %(cents)s, %(spent)s, %(at)s::timestamptz)

-- name: count_grants
select count(*) from meterbook.credit_grant g where g.entity_id = %(entity_id)s

-- name: switch_entity
-- From its commit on the ledger is what counts.
update meterbook.cutover_entity e set state = 'switched', switched_at = %(at)s::timestamptz, billed = %(billed)s::numeric, credits = %(credits)s::numeric, difference = 0, agreed_since = coalesce(e.agreed_since, %(at)s::timestamptz)
where e.entity_id = %(entity_id)s and e.state = 'shadow'

-- name: list_newcomers
-- Users whose counters appeared after everybody was switched: nobody compares them any more. Those that were left out are none.
select c.user_id from pg_temp.legacy_counter c
where c.user_id > %(after)s and not exists (select from meterbook.cutover_counter k where k.name = 'user:' || c.user_id)
  and not exists (select from meterbook.cutover_refusal r where r.subject = 'user:' || c.user_id)
  and exists (select from meterbook.cutover w where w.is_whole) and exists (select from meterbook.cutover_entity e where e.state in ('switched', 'retired'))
  and not exists (select from meterbook.cutover_entity e where e.state = 'shadow')
order by c.user_id limit %(rows)s

-- name: begin_newcomers
-- All that such a counter says was added after the switch. Payers that were rolled back, or left out, stay so.
with place as (
  select a.external_id as user_id, c.entity_id, c.home_id from meterbook.actor a join meterbook.period_clock c on c.entity_id = a.payer_id
  where a.external_id = any (%(users)s::text[]) and not exists (select from meterbook.shadowed_entity s where s.entity_id = a.payer_id)),
entity as (
  insert into meterbook.cutover_entity (entity_id, state, period_id, began_at, switched_at)
  select distinct p.entity_id, 'switched', p.home_id, %(at)s::timestamptz, %(at)s::timestamptz from place p on conflict (entity_id) do nothing)
insert into meterbook.cutover_counter (name, kind, owner, entity_id, period_id, base, held, seen, seen_last, looked_at)
select 'user:' || p.user_id, 'running', p.user_id, p.entity_id, p.home_id, 0, 0, 0, 0, %(at)s::timestamptz from place p on conflict (name) do nothing

-- name: note_absorbed
-- What a look after the switch made of each counter.
update meterbook.cutover_counter k set seen = u.value, seen_last = u.last, moved = u.moved, absorbed = u.absorbed, absorptions = u.absorptions, base = u.base,
  fall_id = u.fall_id, looked_at = %(at)s::timestamptz, note = case when u.note = '' then k.note else u.note end,
  moved_at = case when (k.seen, k.seen_last) is distinct from (u.value, u.last) then %(at)s::timestamptz else k.moved_at end
from unnest(%(names)s::text[], %(values)s::numeric[], %(lasts)s::numeric[], %(moveds)s::numeric[], %(absorbeds)s::numeric[], %(absorptions)s::integer[],
            %(bases)s::numeric[], %(notes)s::text[], %(falls)s::bigint[]) u(name, value, last, moved, absorbed, absorptions, base, note, fall_id)
where k.name = u.name

-- name: list_late
-- The entries of one counter's late usage, the latest first, with what corrections have left of them.
select late.name, n.amount + coalesce(c.corrected, 0) as rest
from generate_series(1, %(absorptions)s::integer) i
cross join lateral (select 'cutover:late:' || %(name)s::text || ':' || %(epoch)s::integer || ':' || i as name) late
join meterbook.event_key n on n.key = meterbook.event_key(late.name)
left join meterbook.entry_correction c on c.entity_id = n.entity_id and c.key = n.key
where n.amount + coalesce(c.corrected, 0) > 0 order by i desc

-- name: read_lateness
-- When a counter of a switched entity last moved, and how many did within the last minutes.
select max(k.moved_at) as last_moved_at, count(*) filter (where k.moved_at > %(at)s::timestamptz - make_interval(secs => %(quiet_s)s)) as moving,
       coalesce(sum(k.moved), 0) as moved, coalesce(sum(k.absorbed), 0) as absorbed
from meterbook.cutover_counter k join meterbook.cutover_entity e on e.entity_id = k.entity_id where e.state in ('switched', 'retired')

-- name: list_rebilled
-- Switched entities of which old instances have billed or granted something since that was last read. billed: null where it stands on another's row.
select e.entity_id, b.kind || ':' || b.external_id as entity, e.period_id, e.billed as was_billed, e.credits as was_credits,
       coalesce(c.billed, 0) as billed, case b.kind when 'user' then coalesce(c.credits, 0) else coalesce(o.credits, 0) end as credits
from meterbook.cutover_entity e
join meterbook.billing_entity b on b.id = e.entity_id
left join pg_temp.legacy_organization o on b.kind = 'organization' and o.id = b.external_id
left join pg_temp.legacy_counter c on c.user_id = case b.kind when 'user' then b.external_id else (
  select min(m.user_id) from pg_temp.legacy_member m where m.organization_id = b.external_id and m.role = 'owner') end
where e.state = 'switched' and (%(entities)s::bigint[] is null or e.entity_id = any (%(entities)s))
  and ((e.billed is not null and coalesce(c.billed, 0) <> e.billed)
       or (e.credits is not null and case b.kind when 'user' then coalesce(c.credits, 0) else coalesce(o.credits, 0) end <> e.credits))
order by e.entity_id

-- name: note_rebilled
update meterbook.cutover_entity e set billed = case when e.billed is not null then %(billed)s::numeric end, credits = %(credits)s::numeric where e.entity_id = %(entity_id)s

-- name: list_unsound
-- What a cutover promises, checked against the rows: a baseline that is not its counters', days beyond it, late usage that is not in the ledger.
select 'baseline = Σ its counters' as claim, b.kind || ':' || b.external_id as entity, x.amount as found, s.base as expected
from meterbook.cutover_entity e
join meterbook.billing_entity b on b.id = e.entity_id
join lateral (select coalesce(sum(k.base), 0) as base from meterbook.cutover_counter k where k.entity_id = e.entity_id and k.period_id = e.period_id) s on true
join lateral (select coalesce(max(y.amount), 0) as amount from meterbook.period_baseline y where y.entity_id = e.entity_id and y.period_id = e.period_id) x on true
where e.state = 'switched' and x.amount <> s.base
union all
select 'Σ dated ≤ baseline', b.kind || ':' || b.external_id, d.amount, x.amount
from meterbook.period_baseline x
join meterbook.billing_entity b on b.id = x.entity_id
join lateral (select sum(y.amount) as amount from meterbook.period_baseline_day y where y.entity_id = x.entity_id and y.period_id = x.period_id) d on true
where d.amount > x.amount
union all
select 'absorbed = Σ its entries', k.name, coalesce(sum(n.amount + coalesce(c.corrected, 0)), 0), k.absorbed
from meterbook.cutover_counter k
left join generate_series(1, k.absorptions) i on true
left join meterbook.event_key n on n.key = meterbook.event_key('cutover:late:' || k.name || ':' || k.epoch || ':' || i)
left join meterbook.entry_correction c on c.entity_id = n.entity_id and c.key = n.key
join meterbook.cutover_entity e on e.entity_id = k.entity_id and e.state in ('switched', 'retired')
group by k.name, k.absorbed having coalesce(sum(n.amount + coalesce(c.corrected, 0)), 0) <> k.absorbed
union all
select 'its rows are in the ledger', r.counter, sum(n.amount), sum(r.amount)
from meterbook.cutover_row r left join meterbook.event_key n on n.key = meterbook.event_key('legacy:' || r.audit_id)
where r.amount > 0 group by r.counter having sum(n.amount) is distinct from sum(r.amount)
order by 1, 2 limit %(rows)s

-- name: retire_entities
-- Those whose first period was closed here: the seal has their baseline.
update meterbook.cutover_entity e set state = 'retired' from meterbook.billing_period p
where e.state = 'switched' and p.entity_id = e.entity_id and p.id = e.period_id and p.state = 'closed'
returning e.entity_id

-- name: count_states
-- How many entities are how far.
select count(*) filter (where e.state = 'shadow') as shadow, count(*) filter (where e.state = 'switched') as switched,
       count(*) filter (where e.state = 'retired') as retired, count(*) filter (where e.state = 'rolled_back') as rolled_back from meterbook.cutover_entity e

-- name: list_own_usage
-- What each actor used of an entity that is in no counter: recorded since it is compared, under keys of one's own, less what went back already.
-- elsewhere: what of it is of another period than the one that was switched.
with used as (
  select l.key, l.amount, l.actor_id, coalesce(late.booked, l.period_id) as period_id
  from meterbook.usage_log l left join meterbook.late_entry late on late.entity_id = l.entity_id and late.key = l.key
  where l.entity_id = %(entity_id)s and l.recorded_at >= %(since)s::timestamptz and l.source <> %(late_source)s),
counted as materialized (
  select meterbook.event_key('legacy:' || r.audit_id) as key
  from (select distinct u.actor_id from used u) one join meterbook.actor a on a.id = one.actor_id
  join meterbook.cutover_row r on r.counter = 'user:' || a.external_id and r.amount > 0),
own as (
  select coalesce(a.external_id, '#' || a.id) as user_id, sum(u.amount) as amount,
         coalesce(sum(u.amount) filter (where u.period_id <> %(period_id)s), 0) as elsewhere
  from used u join meterbook.actor a on a.id = u.actor_id
  join meterbook.billing_period p on p.entity_id = %(entity_id)s and p.id = u.period_id and p.kind <> 'history'
  left join counted c on c.key = u.key where c.key is null group by 1)
select o.user_id, o.amount - coalesce(r.amount, 0) as amount, o.elsewhere
from own o left join meterbook.cutover_return r on r.entity_id = %(entity_id)s and r.user_id = o.user_id
where o.amount <> coalesce(r.amount, 0) or o.elsewhere <> 0 order by 1

-- name: read_kept
-- An entity's limit and blocks here: edited since, they are not written back.
select (select l.stored from meterbook.entity_limit l where l.entity_id = %(entity_id)s) as stored,
       (select string_agg(distinct b.reason, ', ' order by b.reason) from meterbook.entity_block b where b.entity_id = %(entity_id)s) as blocks

-- name: list_rolled_back
-- Of these entities those that were switched once and count elsewhere again.
select e.entity_id, e.period_id, e.began_at from meterbook.cutover_entity e
where e.entity_id = any (%(entities)s::bigint[]) and e.state = 'rolled_back' and e.switched_at is not null

-- name: list_without_counter
-- Who of these has no counter to give anything back to.
select u.user_id from unnest(%(users)s::text[]) u(user_id) where not exists (select from pg_temp.legacy_counter c where c.user_id = u.user_id) order by 1

-- name: note_returned
-- What has gone back to whom, all in all.
insert into meterbook.cutover_return (entity_id, user_id, amount)
select %(entity_id)s, u.user_id, u.amount from unnest(%(users)s::text[], %(amounts)s::numeric[]) u(user_id, amount)
on conflict (entity_id, user_id) do update set amount = cutover_return.amount + excluded.amount

-- name: limit_lock_wait
-- Of this transaction: whoever holds one row of theirs keeps nobody waiting at the rows that this one holds already.
select set_config('lock_timeout', '50ms', true)

-- name: give_back_usage
-- In one statement, so that none of these rows is held for longer than that.
update pg_temp.legacy_counter c set running = coalesce(c.running, 0) + u.amount from unnest(%(users)s::text[], %(amounts)s::numeric[]) u(user_id, amount)
where c.user_id = u.user_id

-- name: give_back_billed
update pg_temp.legacy_counter set billed = coalesce(billed, 0) + %(amount)s::numeric where user_id = any (%(users)s::text[])

-- name: give_back_user_credits
update pg_temp.legacy_counter set credits = coalesce(credits, 0) + %(amount)s::numeric where user_id = any (%(users)s::text[])

-- name: give_back_organization_credits
update pg_temp.legacy_organization set credits = coalesce(credits, 0) + %(amount)s::numeric where id = any (%(users)s::text[])

-- name: owner_of
select min(m.user_id) from pg_temp.legacy_member m where m.organization_id = %(organization)s and m.role = 'owner'

-- name: roll_back_entity
-- It counts elsewhere again; each of its counters begins again when it is compared once more.
with counters as (update meterbook.cutover_counter k set is_over = true where k.entity_id = %(entity_id)s)
update meterbook.cutover_entity e set state = 'rolled_back', agreed_since = null where e.entity_id = %(entity_id)s

-- name: list_past_places
-- Of users of theirs who are compared or switched: where their usage of now goes, whose past windows follow from it.
select c.user_id, payer.kind || ':' || payer.external_id as payer, p.starts_at as payer_starts, p.kind = 'dated' as payer_dated, own.kind || ':' || own.external_id as own,
       mine.starts_at as own_starts, m.joined_at
from pg_temp.legacy_counter c
join meterbook.cutover_counter k on k.name = 'user:' || c.user_id
join meterbook.billing_entity payer on payer.id = k.entity_id
join meterbook.billing_period p on p.entity_id = k.entity_id and p.id = k.period_id
join meterbook.billing_entity own on own.kind = 'user' and own.external_id = c.user_id
left join meterbook.cutover_entity self on self.entity_id = own.id
left join meterbook.billing_period mine on mine.entity_id = own.id and mine.id = self.period_id and mine.kind = 'dated'
left join lateral (select min(x.joined_at) as joined_at from pg_temp.legacy_member x where x.user_id = c.user_id) m on true
where c.user_id > %(after)s order by c.user_id limit %(rows)s

-- name: list_past_rows
-- A page of one user's rows before an instant that the ledger has not under their keys.
select a.id, a.amount, a.occurred_at, a.source, a.description, a.category, a.workflow, a.execution
from pg_temp.legacy_audit a
where a.user_id = %(user)s and a.indexed_at >= %(earliest)s and a.indexed_at < %(latest)s
  and a.occurred_at >= %(since)s::timestamptz and a.occurred_at < %(until)s::timestamptz and (a.occurred_at, a.id) > (%(after_at)s::timestamptz, %(after_id)s::text)
order by a.occurred_at, a.id limit %(rows)s

-- name: import_history
select meterbook.import_history(%(entity)s, %(starts)s::timestamptz, %(ends)s::timestamptz, %(keys)s::uuid[], %(fingerprints)s::uuid[], %(actors)s::text[],
  %(amounts)s::numeric[], %(categories)s::text[], %(sources)s::text[], %(descriptions)s::text[], %(workflows)s::text[], %(executions)s::text[],
  %(occurred_ats)s::timestamptz[], %(at)s::timestamptz)

-- name: list_unsealed_history
select p.entity_id, p.id as period_id from meterbook.billing_period p where p.kind = 'history' and p.state = 'open' order by 1, 2 limit %(rows)s

-- name: seal_history
select meterbook.seal_history(%(entity_id)s, %(period_id)s)
