-- Terms of every figure, from one snapshot each; Python's core computes (I6). Functions here that lock are named lock_…; the others read.

create function meterbook.allowance_of(the_subscription text, starts timestamptz, ends timestamptz)
returns table (plan text, seats integer, included numeric, refresh_per_day numeric)
language sql stable as $$
  -- The largest that plan and seats gave at any moment of [starts, ends); plan and seats as they were last (BEHAVIOUR §7). A change between
  -- overage and none cuts; where there was nothing to cut, because the subscription rested, the last kind counts alone.
  with segment as (
    select g.*, lead(g.effective_at) over (order by g.effective_at, g.id) as until, row_number() over (order by g.effective_at, g.id) as place
    from meterbook.subscription_segment g where g.subscription_id = the_subscription),
  in_force as (
    select * from segment s where (s.effective_at < ends or s.place = 1) and (s.until is null or s.until > starts))
  select last.plan, last.seats, case when last.included is not null then (select max(i.included) from in_force i) end,
         (select max(i.refresh_per_day) from in_force i where (i.included is null) = (last.included is null))
  from in_force last order by last.place desc limit 1
$$;

create function meterbook.grants_of(the_entity bigint)
returns table (id bigint, grant_key text, cents bigint, remaining bigint, source text, priority integer, expires_at timestamptz, granted_at timestamptz, period_id bigint)
language sql stable as $$
  select g.id, g.grant_key, g.cents,
         g.cents - coalesce((select sum(s.cents) from meterbook.credit_spend s where s.entity_id = the_entity and s.grant_id = g.id), 0)::bigint,
         g.source, g.priority, g.expires_at, g.granted_at, g.period_id
  from meterbook.credit_grant g where g.entity_id = the_entity
$$;

create function meterbook.held_by(the_entity bigint, at timestamptz) returns numeric
language sql stable as $$
  -- Active holds: the gate's count, less those that ended since and those that have run out.
  select coalesce((select g.held from meterbook.hold_gate g where g.entity_id = the_entity), 0)
       - coalesce((select sum(n.amount) from meterbook.hold_end n where n.entity_id = the_entity), 0)
       - coalesce((select sum(h.amount) from meterbook.hold h where h.entity_id = the_entity and h.state = 'active' and h.expires_at <= at), 0)
$$;

create function meterbook.period_terms(the_entity bigint, the_period bigint, at timestamptz, grains text[] default null) returns jsonb
language sql stable as $$
  -- All that figures of a period are computed from: its row, its sums, baseline, stored limit, what was billed, grants to spend, holds, blocks, and
  -- where a charge would be sent.
  select jsonb_build_object(
    'at', at, 'entity', e.kind || ':' || coalesce(e.external_id, '#' || e.id), 'entity_id', e.id,
    'id', p.id, 'kind', p.kind, 'starts_at', p.starts_at, 'ends_at', p.ends_at, 'plan', p.plan, 'seats', p.seats, 'included', p.included::text,
    'refresh_per_day', p.refresh_per_day::text,
    'state', case when p.state = 'closed' then 'closed' when p.state = 'sealing' or p.ends_at <= at then 'closing' else 'open' end,
    'terms', (select coalesce(jsonb_agg(jsonb_build_array(t.grain,
                case when t.grain = 'actor' then (select coalesce(a.external_id, '#' || a.id) from meterbook.actor a where a.id = t.part::bigint) else t.part end,
                t.detail, t.amount::text, t.entries)), '[]')
              from meterbook.usage_terms(the_entity, the_period, at, grains) t),
    'baseline', (select b.amount::text from meterbook.period_baseline b where b.entity_id = the_entity and b.period_id = the_period),
    'baseline_days', (select coalesce(jsonb_agg(jsonb_build_array(b.day, b.amount::text)), '[]') from meterbook.period_baseline_day b
                      where b.entity_id = the_entity and b.period_id = the_period),
    'stored', (select l.stored::text from meterbook.entity_limit l where l.entity_id = the_entity),
    'charged_cents', (select coalesce(sum(c.charged_cents), 0)::bigint from meterbook.charge c where c.entity_id = the_entity and c.period_id = the_period),
    'credits_cents', (select coalesce(sum(c.credits_cents), 0)::bigint from meterbook.charge c where c.entity_id = the_entity and c.period_id = the_period),
    'written_off_cents', (select coalesce(sum(c.written_off_cents), 0)::bigint from meterbook.charge c where c.entity_id = the_entity and c.period_id = the_period),
    'grants', (select coalesce(jsonb_agg(jsonb_build_array(g.id, g.remaining, g.priority, g.expires_at, g.granted_at)), '[]')
               from meterbook.grants_of(the_entity) g where g.remaining > 0),
    'held', meterbook.held_by(the_entity, at)::text,
    'blocks', (select coalesce(jsonb_agg(distinct b.reason), '[]') from meterbook.entity_block b where b.entity_id = the_entity),
    'status', s.status, 'included_now', s.included::text, 'stripe_customer', s.stripe_customer, 'stripe_subscription', s.stripe_subscription,
    'has_owner', not exists (select from meterbook.organization o where o.entity_id = the_entity and o.owner_id is null))
  from meterbook.billing_period p
  join meterbook.billing_entity e on e.id = p.entity_id
  left join meterbook.subscription s on s.id = p.subscription_id
  where p.entity_id = the_entity and p.id = the_period
$$;

create function meterbook.admission_terms(actor text, workspace text, at timestamptz default null) returns jsonb
language sql stable security definer set search_path = meterbook, pg_temp set jit = off as $$
  -- All that a check compares, in one snapshot: outcome resolved | unattributed | unknown_workspace.
  with moment as (select coalesce(admission_terms.at, clock_timestamp()) as at),
  payer as materialized (
    select a.id as actor_id, p.id as entity_id, p.home_id, m.at,
           exists (select from meterbook.entity_block b join meterbook.billing_entity own on own.id = b.entity_id and own.kind = 'user'
                   where own.external_id = admission_terms.actor and b.reason = 'administrative') as actor_blocked
    from moment m cross join meterbook.actor a
    cross join lateral meterbook.payer_of_entry(null, null, admission_terms.workspace, a.payer_id, a.payer_until, m.at) p
    where a.external_id = admission_terms.actor)
  select coalesce(
    (select jsonb_build_object('outcome', 'resolved', 'actor_blocked', p.actor_blocked, 'actor_id', p.actor_id, 'entity_id', p.entity_id,
       'cap', c.cap::text,
       'member_total', (select coalesce(sum(u.amount), 0)::text from (
          select r.amount from meterbook.usage_rollup r where r.entity_id = p.entity_id and r.period_id = p.home_id and r.grain = 'actor'
            and r.part = p.actor_id::text and r.detail = ''
          union all select d.amount from meterbook.pending_of(p.entity_id, p.home_id, p.at) d where d.actor_id = p.actor_id) u),
       'member_held', (select coalesce(sum(h.amount), 0)::text from meterbook.hold h
          where h.entity_id = p.entity_id and h.actor_id = p.actor_id and h.state = 'active' and h.expires_at > p.at),
       'period', meterbook.period_terms(p.entity_id, p.home_id, p.at, array['total', 'day']))
     from payer p left join meterbook.member_cap c on c.organization_id = p.entity_id and c.actor_id = p.actor_id),
    (select jsonb_build_object('outcome', case when admission_terms.workspace is not null
       and not exists (select from meterbook.workspace w where w.external_id = admission_terms.workspace) then 'unknown_workspace' else 'unattributed' end)))
$$;

-- -------------------------------------------------------------------------------------------------------------------------- holds

create function meterbook.lock_gate(the_entity bigint, at timestamptz) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- Locks the entity's gate, and counts it: holds that ended since, holds that ran out. In a statement of its own, so that what is read next is younger.
declare ran_out numeric;
begin
  insert into meterbook.hold_gate (entity_id, held) values (the_entity, 0) on conflict do nothing;
  perform from meterbook.hold_gate g where g.entity_id = the_entity for update;
  with over as (
    update meterbook.hold h set state = 'expired', ended_at = at
    where h.hold_key in (select x.hold_key from meterbook.hold x where x.entity_id = the_entity and x.state = 'active' and x.expires_at <= at
                         for update skip locked)
    returning h.amount),
  ended as (delete from meterbook.hold_end n where n.entity_id = the_entity returning n.amount)
  select coalesce((select sum(amount) from over), 0) + coalesce((select sum(amount) from ended), 0) into ran_out;
  update meterbook.hold_gate g set held = g.held - ran_out where g.entity_id = the_entity and ran_out <> 0;
end $$;

create function meterbook.grant_hold(hold_key text, the_entity bigint, the_actor bigint, workspace text, amount numeric, ttl interval, at timestamptz)
returns timestamptz
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- Under the gate's lock. Gives when it expires; null if the id was taken meanwhile, under another entity's gate.
declare expires timestamptz := at + ttl;
begin
  insert into meterbook.hold (hold_key, entity_id, actor_id, workspace, amount, granted_at, expires_at)
  values (grant_hold.hold_key, the_entity, the_actor, grant_hold.workspace, grant_hold.amount, at, expires) on conflict do nothing;
  if not found then return null; end if;
  update meterbook.hold_gate g set held = g.held + grant_hold.amount where g.entity_id = the_entity;
  return expires;
end $$;

create function meterbook.end_hold(hold_key text, how text, settle_key uuid, settled numeric, at timestamptz)
returns table (outcome text, entity text, entity_id bigint, actor text, workspace text)
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- Ends a hold: its own row and a line in hold_end, never the gate. Outcome: active (it ended now) | settled | released | expired (it was
-- dead already) | replayed (the same settle again) | conflict (another settle) | unknown.
#variable_conflict use_column
declare h meterbook.hold;
begin
  select x.* into h from meterbook.hold x where x.hold_key = end_hold.hold_key for update;
  if not found then return query select 'unknown', null::text, null::bigint, null::text, null::text; return; end if;
  outcome := case
    when h.state = 'settled' and how = 'settled' then case when (h.settle_key, h.settled) is not distinct from (end_hold.settle_key, end_hold.settled) then 'replayed' else 'conflict' end
    when h.state = 'active' and h.expires_at <= at then 'expired'
    else h.state end;
  if h.settle_key is not null and outcome in ('expired', 'released') and how = 'settled' then
    outcome := case when (h.settle_key, h.settled) is not distinct from (end_hold.settle_key, end_hold.settled) then outcome else 'conflict' end;
  elsif outcome in ('active', 'expired', 'released') and (how = 'settled' or outcome = 'active') then
    update meterbook.hold x set state = case when outcome = 'active' then how when outcome = 'expired' then 'expired' else x.state end, ended_at = coalesce(x.ended_at, at),
      settle_key = end_hold.settle_key, settled = end_hold.settled
    where x.hold_key = h.hold_key;
    if h.state = 'active' then
      insert into meterbook.hold_end (entity_id, amount, hold_key) values (h.entity_id, h.amount, h.hold_key);
    end if;
  end if;
  return query select outcome, e.kind || ':' || coalesce(e.external_id, '#' || e.id), h.entity_id, a.external_id, h.workspace
    from meterbook.billing_entity e, meterbook.actor a where e.id = h.entity_id and a.id = h.actor_id;
end $$;

-- ------------------------------------------------------------------------------------------------------------- billing and closing

create function meterbook.lock_period(the_entity bigint, the_period bigint) returns text
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- The period's row, then the entity's grants: whoever bills or closes comes by here, one at a time. Gives the state.
declare found_state text;
begin
  select p.state into found_state from meterbook.billing_period p where p.entity_id = the_entity and p.id = the_period for no key update;
  perform from meterbook.credit_grant g where g.entity_id = the_entity order by g.id for update;
  return found_state;
end $$;

create function meterbook.write_charge(the_entity bigint, the_period bigint, the_kind text, charged bigint, credits bigint, written_off bigint, overage numeric,
                                       grant_ids bigint[], grant_cents bigint[], at timestamptz) returns bigint
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- A charge, the grants that paid part of it, and the outbox row that will invoice the rest, together (I3).
declare charge_id bigint;
begin
  insert into meterbook.charge (entity_id, period_id, kind, charged_cents, credits_cents, written_off_cents, overage, at)
  values (the_entity, the_period, the_kind, charged, credits, written_off, write_charge.overage, write_charge.at) returning id into charge_id;
  insert into meterbook.credit_spend (entity_id, grant_id, charge_id, cents, at)
  select the_entity, u.grant_id, charge_id, u.cents, write_charge.at from unnest(grant_ids, grant_cents) u(grant_id, cents);
  if charged > 0 then
    insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
    select the_entity, 'charge', 'charge:' || the_entity || ':' || charge_id,
           jsonb_build_object('charge', charge_id, 'period', the_period, 'kind', the_kind, 'amount_cents', charged,
                              'stripe_customer', s.stripe_customer, 'stripe_subscription', s.stripe_subscription), write_charge.at
    from meterbook.billing_period p left join meterbook.subscription s on s.id = p.subscription_id
    where p.entity_id = the_entity and p.id = the_period;
  end if;
  return charge_id;
end $$;

create function meterbook.grant_credit(the_entity bigint, grant_key text, cents bigint, source text, priority integer, expires_at timestamptz, period bigint, at timestamptz)
returns text
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- granted | replayed | conflict: a grant's key takes effect once.
#variable_conflict use_variable
declare known meterbook.credit_grant;
begin
  insert into meterbook.credit_grant (entity_id, grant_key, cents, source, priority, expires_at, granted_at, period_id)
  values (the_entity, grant_key, cents, source, priority, expires_at, at, period) on conflict on constraint credit_grant_is_named_once do nothing;
  if found then
    perform meterbook.look_again(the_entity, at);
    perform meterbook.look_again(the_entity, expires_at) where expires_at > at;    -- the limit falls then
    return 'granted';
  end if;
  select g.* into known from meterbook.credit_grant g where g.grant_key = grant_credit.grant_key;
  return case when (known.entity_id, known.cents, known.source, known.priority) = (the_entity, cents, source, priority)
                   and known.expires_at is not distinct from expires_at then 'replayed' else 'conflict' end;
end $$;

create function meterbook.fence_period(the_entity bigint, the_period bigint) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- From its commit on, recordings treat the period as closed. A recorder never waits for it.
begin
  update meterbook.billing_period p set state = 'sealing' where p.entity_id = the_entity and p.id = the_period and p.state = 'open';
end $$;

create function meterbook.lock_fold() returns void
language sql security definer set search_path = meterbook, pg_temp as $$
  -- Shared with other seals, exclusive of the compactor; in a statement of its own, before anything is read.
  select pg_advisory_xact_lock_shared(5067, 1)
$$;

create function meterbook.unfence_period(the_entity bigint, the_period bigint, reason text, at timestamptz) returns void
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- A close that has to wait: the period takes entries again, and somebody is told once.
begin
  update meterbook.billing_period p set state = 'open' where p.entity_id = the_entity and p.id = the_period and p.state = 'sealing';
  insert into meterbook.deferred_close (entity_id, period_id, reason, since) values (the_entity, the_period, unfence_period.reason, unfence_period.at)
  on conflict do nothing;
  if found then
    insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
    values (the_entity, 'alert', 'deferred:' || the_entity || ':' || the_period,
            jsonb_build_object('alert', 'close_deferred', 'period', the_period, 'reason', unfence_period.reason), unfence_period.at)
    on conflict do nothing;
  end if;
end $$;

create function meterbook.fold_period(the_entity bigint, the_period bigint) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set jit = off as $$
-- Sealed means consumed: the period's visible deltas go into its rollups now; one that becomes visible later is late.
begin
  with consumed as (
    delete from meterbook.usage_delta d where d.entity_id = the_entity and d.period_id = the_period
    returning d.day, d.actor_id, d.source, d.description, d.amount, d.entries, d.digest),
  grouped as (
    select case grouping(c.day, c.actor_id, c.source) when 7 then 'total' when 3 then 'day' when 5 then 'actor' else 'description' end as grain,
           coalesce(c.day::text, c.actor_id::text, c.source, '') as part, coalesce(c.description, '') as detail,
           sum(c.amount) as amount, sum(c.entries)::bigint as entries, sum(c.digest) as digest
    from consumed c group by grouping sets ((), (c.day), (c.actor_id), (c.source, c.description)) having count(*) > 0)
  insert into meterbook.usage_rollup (entity_id, period_id, grain, part, detail, amount, entries, digest)
  select the_entity, the_period, g.grain, g.part, g.detail, g.amount, g.entries, g.digest from grouped g order by g.grain, g.part, g.detail
  on conflict on constraint usage_rollup_pkey do update set
    amount = usage_rollup.amount + excluded.amount, entries = usage_rollup.entries + excluded.entries, digest = usage_rollup.digest + excluded.digest;
end $$;

create function meterbook.seal_period(the_entity bigint, the_period bigint, baseline numeric, refresh numeric, effective numeric, overage numeric, given_back bigint, at timestamptz)
returns void
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- Final figures per entity and actor, kept for good, and the state. Under lock_fold and lock_period, after fold_period and the final charge.
begin
  insert into meterbook.sealed_period (entity_id, period_id, closed_at, baseline, amount, entries, digest, refresh, effective, overage,
    charged_cents, credits_cents, written_off_cents, given_back_cents)
  select the_entity, the_period, seal_period.at, seal_period.baseline, coalesce(r.amount, 0), coalesce(r.entries, 0), coalesce(r.digest, 0),
         seal_period.refresh, seal_period.effective, seal_period.overage,
         coalesce(c.charged, 0), coalesce(c.credits, 0), coalesce(c.written_off, 0), given_back
  from (select) as always
  left join meterbook.usage_rollup r on r.entity_id = the_entity and r.period_id = the_period and r.grain = 'total' and r.part = '' and r.detail = ''
  left join (select sum(x.charged_cents)::bigint as charged, sum(x.credits_cents)::bigint as credits, sum(x.written_off_cents)::bigint as written_off
             from meterbook.charge x where x.entity_id = the_entity and x.period_id = the_period) c on true;
  insert into meterbook.sealed_actor (entity_id, period_id, actor_id, amount, entries)
  select the_entity, the_period, r.part::bigint, r.amount, r.entries from meterbook.usage_rollup r
  where r.entity_id = the_entity and r.period_id = the_period and r.grain = 'actor';
  update meterbook.billing_period p set state = 'closed' where p.entity_id = the_entity and p.id = the_period;
  delete from meterbook.deferred_close d where d.entity_id = the_entity and d.period_id = the_period;
  delete from meterbook.alert_mark m where m.entity_id = the_entity and m.period_id = the_period;
end $$;

create function meterbook.corrections_of(the_entity bigint, the_period bigint)
returns table (day integer, booked_here boolean, amount numeric, negative numeric)
language sql stable as $$
  -- Corrections of a period's entries, on the entries' days; those booked elsewhere came after it was closed.
  select c.of_day, c.booked = the_period, sum(c.amount), sum(c.amount) filter (where c.amount < 0)
  from meterbook.correction c where c.entity_id = the_entity and c.of_period = the_period group by 1, 2
$$;

create function meterbook.begin_cancellations(actors bigint[], at timestamptz) returns void
language plpgsql as $$
-- An organization begins to pay for these: whatever subscription of their own has not ended is set to cancel at its period's end, an unpaid
-- one too, and that is noted as our doing (BEHAVIOUR §12).
declare s record;
begin
  for s in
    select b.id, b.owner_id, meterbook.term_end(b, at) as ends_at
    from meterbook.actor a
    join meterbook.billing_entity own on own.kind = 'user' and own.external_id = a.external_id
    join meterbook.subscription b on b.owner_id = own.id and b.status not in ('canceled', 'incomplete_expired') and b.ended_at is null
    where a.id = any (actors) and a.payer_id <> own.id
    order by b.id for no key update of b
  loop
    update meterbook.subscription b set cancel_at_period_end = true, cancelled_by_us = true, ended_at = s.ends_at where b.id = s.id;
    perform meterbook.tell_cancellation(s.owner_id, s.id, true, at);
  end loop;
end $$;

create function meterbook.take_back_cancellations(actors bigint[], at timestamptz) returns boolean
language plpgsql as $$
-- Leaving, and the end of the organization's subscription, take back a cancellation of ours, never the person's own; one that has ended stays
-- ended. While the organization's is merely unpaid, ours stands (BEHAVIOUR §12). An end by the clock counts at its own time, whoever comes by
-- first: what it takes back before, or when, one's own ends goes on. An end that is told counts from when it was told: nothing could be taken
-- back before. Says whether there was one.
declare
  s     record;
  taken boolean := false;
begin
  for s in
    select b.id, b.owner_id
    from meterbook.actor a
    join meterbook.billing_entity own on own.kind = 'user' and own.external_id = a.external_id
    join meterbook.subscription b on b.owner_id = own.id and b.cancelled_by_us and b.status not in ('canceled', 'incomplete_expired')
    left join lateral (
      select max(case when o.status in ('canceled', 'incomplete_expired') then o.updated_at else coalesce(o.ended_at, 'infinity') end) as ended_at,
             min(m.joined_at) as joined_at
      from meterbook.member m join meterbook.subscription o on o.owner_id = m.organization_id
      where m.actor_id = a.id and m.left_at is null) organization on true
    where a.id = any (actors) and coalesce(organization.ended_at, at) <= at
      and (b.ended_at > at or (b.ended_at >= organization.ended_at and b.ended_at >= organization.joined_at))
    order by b.id for no key update of b
  loop
    update meterbook.subscription b set cancel_at_period_end = false, cancelled_by_us = false, ended_at = null where b.id = s.id;
    perform meterbook.tell_cancellation(s.owner_id, s.id, false, at);
    taken := true;
  end loop;
  return taken;
end $$;

create function meterbook.tell_cancellation(owner_id bigint, subscription_id text, cancels boolean, at timestamptz) returns void
language sql as $$
  -- Stripe is told through the outbox (I3).
  insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
  values (owner_id, 'cancel_at_period_end', 'cancel:' || subscription_id || ':' || gen_random_uuid(),
          jsonb_build_object('subscription', subscription_id, 'cancel_at_period_end', cancels), at)
$$;

grant select on all tables in schema meterbook to meterbook_reader, meterbook_importer;
revoke all on all functions in schema meterbook from public;
grant execute on function
  meterbook.admission_terms, meterbook.lock_gate, meterbook.grant_hold, meterbook.end_hold, meterbook.lock_period, meterbook.write_charge,
  meterbook.grant_credit, meterbook.fence_period, meterbook.lock_fold, meterbook.unfence_period, meterbook.fold_period, meterbook.seal_period
  to meterbook_writer, meterbook_importer;
grant execute on function meterbook.period_terms, meterbook.grants_of, meterbook.held_by, meterbook.corrections_of, meterbook.allowance_of
  to meterbook_reader, meterbook_importer;
