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
language plpgsql stable as $$
-- Active holds: the gate's count, less those that ended since and those that have run out. No gate: nothing was ever held.
declare counted numeric;
begin
  select g.held into counted from meterbook.hold_gate g where g.entity_id = the_entity;
  if not found then return 0; end if;
  return counted
       - coalesce((select sum(n.amount) from meterbook.hold_end n where n.entity_id = the_entity), 0)
       - coalesce((select sum(h.amount) from meterbook.hold h where h.entity_id = the_entity and h.state = 'active' and h.expires_at <= at), 0);
end $$;

create function meterbook.recorded_days(the_entity bigint, the_period bigint, is_closed boolean, at timestamptz) returns json
language plpgsql stable set plan_cache_mode = force_generic_plan as $$
-- What was recorded in a period, by day: [day, amount, entries], the day '' of what was given back in money. A day may be there twice, folded and
-- waiting. Nearly always all that waits for an entity is of one open period; else pending_of says what of it is this one's, in twice the time.
declare
  waiting   json;
  elsewhere boolean;
begin
  if not is_closed then
    select json_agg(json_build_array(coalesce(w.day::text, ''), w.amount::text, w.entries)), bool_or(w.period_id <> the_period) into waiting, elsewhere
    from (select d.period_id, d.day, sum(d.amount) as amount, sum(d.entries) as entries from meterbook.usage_delta d
          where d.entity_id = the_entity group by d.period_id, d.day) w;
  end if;
  if is_closed or elsewhere then
    waiting := (select json_agg(json_build_array(coalesce(w.day::text, ''), w.amount::text, w.entries))
                from (select p.day, sum(p.amount) as amount, sum(p.entries) as entries
                      from meterbook.pending_of(the_entity, the_period, recorded_days.at) p group by p.day) w);
  end if;
  return json_build_array((select json_agg(json_build_array(r.part, r.amount::text, r.entries)) from meterbook.usage_rollup r
                           where r.entity_id = the_entity and r.period_id = the_period and r.grain = 'day'), waiting);
end $$;

create function meterbook.period_terms(the_entity bigint, the_period bigint, at timestamptz, breakdowns boolean default true) returns json
language plpgsql stable set search_path = meterbook, pg_temp set plan_cache_mode = force_generic_plan as $$
-- All that figures of a period are computed from: its row, its sums, baseline, stored limit, what was billed, grants to spend, holds, blocks, and
-- where a charge would be sent. STABLE: one snapshot, the caller's; plpgsql: planned once a session (as SQL, planning was four fifths of its time),
-- and not again for callers of another search_path.
declare
  p         record;
  breakdown json;
  grants    json;
begin
  select q.*, e.kind || ':' || coalesce(e.external_id, '#' || e.id) as entity, e.kind as entity_kind, s.status, s.included as included_now,
         coalesce(q.stripe_customer, s.stripe_customer) as customer, coalesce(q.stripe_subscription, s.stripe_subscription) as its_subscription,
         exists (select from meterbook.credit_grant g where g.entity_id = the_entity) as has_grants into p
  from meterbook.billing_period q
  join meterbook.billing_entity e on e.id = q.entity_id
  left join meterbook.subscription s on s.id = q.subscription_id
  where q.entity_id = the_entity and q.id = the_period;
  if not found then return null; end if;
  if breakdowns then
    breakdown := (select json_agg(json_build_array(t.grain,
                case when t.grain = 'actor' then (select coalesce(a.external_id, '#' || a.id) from meterbook.actor a where a.id = t.part::bigint) else t.part end,
                t.detail, t.amount::text))
              from meterbook.usage_terms(the_entity, the_period, period_terms.at, array['actor', 'description']) t);
  end if;
  if p.has_grants then
    grants := (select json_agg(json_build_array(g.id, g.remaining, g.priority, g.expires_at, g.granted_at))
               from meterbook.grants_of(the_entity) g where g.remaining > 0);
  end if;
  return (select json_build_object(
    'at', period_terms.at, 'entity', p.entity, 'entity_id', the_entity,
    'id', p.id, 'kind', p.kind, 'starts_at', p.starts_at, 'ends_at', p.ends_at, 'plan', p.plan, 'seats', p.seats, 'included', p.included::text,
    'refresh_per_day', p.refresh_per_day::text,
    'state', case when p.state = 'closed' then 'closed' when p.state = 'sealing' or p.ends_at <= period_terms.at then 'closing' else 'open' end,
    'subscription', p.subscription_id, 'days', meterbook.recorded_days(the_entity, the_period, p.state = 'closed', period_terms.at), 'breakdown', breakdown,
    'baseline', (select b.amount::text from meterbook.period_baseline b where b.entity_id = the_entity and b.period_id = the_period),
    'baseline_days', (select json_agg(json_build_array(b.day, b.amount::text)) from meterbook.period_baseline_day b
                      where b.entity_id = the_entity and b.period_id = the_period),
    'stored', (select l.stored::text from meterbook.entity_limit l where l.entity_id = the_entity),
    'charged_cents', billed.charged, 'credits_cents', billed.credits, 'written_off_cents', billed.written_off,
    'grants', grants,
    'held', meterbook.held_by(the_entity, period_terms.at)::text,
    'blocks', (select json_agg(b.reason) from meterbook.entity_block b where b.entity_id = the_entity),
    'status', p.status, 'included_now', p.included_now::text, 'stripe_customer', p.customer, 'stripe_subscription', p.its_subscription,
    'has_owner', p.entity_kind = 'user' or not exists (select from meterbook.organization o where o.entity_id = the_entity and o.owner_id is null))
    from (
      select coalesce(sum(c.charged_cents), 0)::bigint as charged, coalesce(sum(c.credits_cents), 0)::bigint as credits,
             coalesce(sum(c.written_off_cents), 0)::bigint as written_off
      from meterbook.charge c where c.entity_id = the_entity and c.period_id = the_period) billed);
end $$;

create function meterbook.admission_party(actor text, workspace text, at timestamptz)
returns table (outcome text, actor_id bigint, entity_id bigint, home_id bigint, actor_blocked boolean, cap numeric, member_total numeric, member_held numeric)
language plpgsql stable set plan_cache_mode = force_generic_plan as $$
-- Who would pay for an actor's work, and what is known of the actor: resolved | unattributed (call attribute, then again) | unknown_workspace.
-- A member's total and holds are looked for where there is a cap to compare them with.
#variable_conflict use_column
declare payer record;
begin
  if admission_party.workspace is null then      -- most calls: what payer_of_entry says, without what it has to look for
    select a.id, c.entity_id, case when c.home_starts_at <= admission_party.at then c.home_id else meterbook.home_at(c, admission_party.at) end as home_id into payer
    from meterbook.actor a join meterbook.period_clock c on c.entity_id = a.payer_id
    where a.external_id = admission_party.actor and a.payer_until > admission_party.at and c.due_at > admission_party.at;
  else
    select a.id, p.id as entity_id, p.home_id into payer from meterbook.actor a
    cross join lateral meterbook.payer_of_entry(null, null, admission_party.workspace, a.payer_id, a.payer_until, admission_party.at) p
    where a.external_id = admission_party.actor;
  end if;
  if payer.home_id is null then
    outcome := case when admission_party.workspace is not null
      and not exists (select from meterbook.workspace w where w.external_id = admission_party.workspace) then 'unknown_workspace' else 'unattributed' end;
    return next;
    return;
  end if;
  outcome := 'resolved'; actor_id := payer.id; entity_id := payer.entity_id; home_id := payer.home_id;
  select exists (select from meterbook.billing_entity own join meterbook.entity_block b on b.entity_id = own.id and b.reason = 'administrative'
                 where own.kind = 'user' and own.external_id = admission_party.actor),
         (select c.cap from meterbook.member_cap c where c.organization_id = payer.entity_id and c.actor_id = payer.id)
  into actor_blocked, cap;
  if cap is not null then
    member_total := (select coalesce(sum(u.amount), 0) from (
      select r.amount from meterbook.usage_rollup r where r.entity_id = payer.entity_id and r.period_id = payer.home_id and r.grain = 'actor'
        and r.part = payer.id::text and r.detail = ''
      union all select d.amount from meterbook.pending_of(payer.entity_id, payer.home_id, admission_party.at) d where d.actor_id = payer.id) u);
    member_held := (select coalesce(sum(h.amount), 0) from meterbook.hold h
      where h.entity_id = payer.entity_id and h.actor_id = payer.id and h.state = 'active' and h.expires_at > admission_party.at);
  end if;
  return next;
end $$;

create function meterbook.admission_terms(actor text, workspace text, at timestamptz default null) returns json
language plpgsql stable security definer set search_path = meterbook, pg_temp set jit = off as $$
-- All that a check compares, in one snapshot. `party` as admission_party says; `period` is the payer's running one, where it is resolved.
declare
  moment timestamptz := coalesce(meterbook.permitted(admission_terms.at), clock_timestamp());
  party  record;
begin
  select * into party from meterbook.admission_party(admission_terms.actor, admission_terms.workspace, moment);
  return json_build_object('outcome', party.outcome, 'actor_id', party.actor_id, 'entity_id', party.entity_id, 'actor_blocked', party.actor_blocked,
    'cap', party.cap::text, 'member_total', party.member_total::text, 'member_held', party.member_held::text,
    'period', case when party.outcome = 'resolved' then meterbook.period_terms(party.entity_id, party.home_id, moment, breakdowns => false) end);
end $$;

-- -------------------------------------------------------------------------------------------------------------------------- holds

create function meterbook.lock_and_read_gate(the_entity bigint, actors text[], workspaces text[], hold_keys text[], at timestamptz default null) returns json
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' set plan_cache_mode = force_generic_plan set jit = off as $$
-- Locks the entity's gate and counts it: holds that ended since, holds that ran out. Then, in a younger snapshot, all that holds of these parties
-- are decided by: the running period's terms, each party as admission_party says, the holds that already have one of these ids.
declare
  moment  timestamptz;
  ran_out numeric;
  home    bigint;
  said    json;
begin
  perform meterbook.lock_gate(the_entity);
  moment := coalesce(meterbook.permitted(lock_and_read_gate.at), clock_timestamp());
  with over as (
    update meterbook.hold h set state = 'expired', ended_at = moment
    where h.hold_key in (select x.hold_key from meterbook.hold x where x.entity_id = the_entity and x.state = 'active' and x.expires_at <= moment
                         for update skip locked)
    returning h.amount),
  ended as (delete from meterbook.hold_end n where n.entity_id = the_entity returning n.amount)
  select coalesce((select sum(amount) from over), 0) + coalesce((select sum(amount) from ended), 0) into ran_out;
  if ran_out <> 0 then
    update meterbook.hold_gate g set held = g.held - ran_out where g.entity_id = the_entity;
  end if;
  select json_build_object(
    'period', (select meterbook.period_terms(the_entity, meterbook.home_at(c, moment), moment, breakdowns => false)
               from meterbook.period_clock c where c.entity_id = the_entity and c.due_at > moment),
    'parties', (select json_agg(json_build_object('actor', u.actor, 'workspace', u.workspace, 'outcome', p.outcome, 'actor_id', p.actor_id, 'entity_id', p.entity_id,
                  'actor_blocked', p.actor_blocked, 'cap', p.cap::text, 'member_total', p.member_total::text, 'member_held', p.member_held::text))
                from unnest(actors, workspaces) u(actor, workspace) cross join lateral meterbook.admission_party(u.actor, u.workspace, moment) p),
    'known', (select json_agg(h.hold_key) from meterbook.hold h where h.hold_key = any (hold_keys))) into said;
  return said;
end $$;

create function meterbook.lock_gate(the_entity bigint) returns void
language plpgsql as $$
begin
  perform from meterbook.hold_gate g where g.entity_id = the_entity for update;
  if not found then
    insert into meterbook.hold_gate (entity_id, held) values (the_entity, 0) on conflict do nothing;
    perform from meterbook.hold_gate g where g.entity_id = the_entity for update;
  end if;
end $$;

create function meterbook.write_holds(the_entity bigint, hold_keys text[], actor_ids bigint[], workspaces text[], amounts numeric[], ttls integer[], at timestamptz)
returns integer
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '200ms' set plan_cache_mode = force_generic_plan as $$
-- Holds that were decided under the gate's lock, and the gate, in one statement. Gives how many were written: fewer, if an id was taken meanwhile
-- under another entity's gate; then the caller undoes all and decides again. By id, so that two who write the same ids don't deadlock.
declare written integer;
begin
  perform meterbook.permitted(write_holds.at);
  with fresh as (
    insert into meterbook.hold (hold_key, entity_id, actor_id, workspace, amount, granted_at, expires_at)
    select u.hold_key, the_entity, u.actor_id, u.workspace, u.amount, write_holds.at, write_holds.at + make_interval(secs => u.ttl)
    from unnest(hold_keys, actor_ids, workspaces, amounts, ttls) u(hold_key, actor_id, workspace, amount, ttl) order by u.hold_key
    on conflict do nothing returning amount),
  counted as (
    update meterbook.hold_gate g set held = g.held + (select sum(f.amount) from fresh f) where g.entity_id = the_entity and exists (select from fresh))
  select count(*) into written from fresh;
  return written;
end $$;

create function meterbook.ending_of(h meterbook.hold, how text, settle_key uuid, settled numeric, at timestamptz) returns text
language sql immutable as $$
  -- What ending a hold comes to: active (it ends now) | settled | released | expired (it was dead already; its settle is kept) | replayed (the same
  -- settle again) | conflict (another settle) | unknown.
  select case
    when h.hold_key is null then 'unknown'
    when how = 'settled' and h.settle_key is not null and (h.settle_key, h.settled) is distinct from (ending_of.settle_key, ending_of.settled) then 'conflict'
    when how = 'settled' and h.state = 'settled' then 'replayed'
    when h.state = 'active' and h.expires_at <= ending_of.at then 'expired'
    else h.state end
$$;

create function meterbook.end_holds(hold_keys text[], hows text[], settle_keys uuid[], settleds numeric[], at timestamptz)
returns table (n integer, outcome text, entity_id bigint, actor text, workspace text, first_key uuid, first_settled numeric)
language plpgsql security definer set search_path = meterbook, pg_temp set plan_cache_mode = force_generic_plan as $$
-- Ends holds, each named once: their own rows and a line each in hold_end, never the gate. Outcomes as ending_of says, or `busy`: somebody else is
-- ending it at this moment, and nothing was done. A dead one that is settled keeps its state. `first_…`: what it was settled with before.
#variable_conflict use_column
declare
  moment timestamptz := meterbook.permitted(end_holds.at);
  ours   text[] := array(select x.hold_key from meterbook.hold x where x.hold_key = any (hold_keys) order by x.hold_key for update skip locked);
begin
  return query
  with asked as materialized (
    select u.n, u.hold_key, u.how, u.settle_key, u.settled, h.entity_id, h.actor_id, h.workspace, h.amount, h.state as was, h.settle_key as first_key, h.settled as first_settled,
           case when h.hold_key is not null and not h.hold_key = any (ours) then 'busy'
                else meterbook.ending_of(h, u.how, u.settle_key, u.settled, moment) end as outcome
    from unnest(hold_keys, hows, settle_keys, settleds) with ordinality u(hold_key, how, settle_key, settled, n)
    left join meterbook.hold h on h.hold_key = u.hold_key),
  changed as (
    update meterbook.hold x set state = case when a.outcome = 'active' then a.how when a.outcome = 'expired' then 'expired' else x.state end,
      ended_at = coalesce(x.ended_at, moment), settle_key = a.settle_key, settled = a.settled
    from asked a
    where x.hold_key = a.hold_key and (a.outcome = 'active' or a.outcome in ('expired', 'released') and a.how = 'settled' and x.settle_key is null)),
  line as (
    insert into meterbook.hold_end (entity_id, amount, hold_key)
    select a.entity_id, a.amount, a.hold_key from asked a
    where a.was = 'active' and (a.outcome = 'active' or a.outcome = 'expired' and a.how = 'settled'))
  select a.n::integer, a.outcome, a.entity_id, p.external_id, a.workspace, a.first_key, a.first_settled from asked a left join meterbook.actor p on p.id = a.actor_id order by a.n;
end $$;

create function meterbook.lock_hold(hold_key text) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- Waits for whoever is ending this hold.
begin
  perform from meterbook.hold x where x.hold_key = lock_hold.hold_key for update;
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

create function meterbook.lock_and_read_period(the_entity bigint, the_period bigint default null, at timestamptz default null) returns json
language plpgsql security definer set search_path = meterbook, pg_temp set jit = off as $$
-- lock_period, and in a younger snapshot what is decided by; of the running period, if none is named. `state` null: there is none, or it is
-- billed elsewhere still.
declare
  moment timestamptz := coalesce(meterbook.permitted(lock_and_read_period.at), clock_timestamp());
  wanted bigint := coalesce(the_period, (select meterbook.home_at(c, moment) from meterbook.period_clock c where c.entity_id = the_entity and c.due_at > moment));
  state  text := meterbook.lock_period(the_entity, wanted);
begin
  if exists (select from meterbook.shadowed_entity s where s.entity_id = the_entity) then
    return json_build_object('state', null, 'period', null);
  end if;
  return json_build_object('state', state, 'period', meterbook.period_terms(the_entity, wanted, moment, breakdowns => false));
end $$;

create function meterbook.lock_and_fold_period(the_entity bigint, the_period bigint, at timestamptz default null) returns json
language plpgsql security definer set search_path = meterbook, pg_temp set jit = off as $$
-- Of a fenced period all that a seal is decided by: under lock_fold, then lock_period, its visible deltas folded, its terms, its corrections by day. In
-- a statement each, so that every one is younger than the locks before it. Of a period in another state that state alone.
declare
  moment timestamptz := coalesce(meterbook.permitted(lock_and_fold_period.at), clock_timestamp());
  state  text;
  said   json;
begin
  perform meterbook.lock_fold();
  state := meterbook.lock_period(the_entity, the_period);
  if state = 'sealing' then
    perform meterbook.fold_period(the_entity, the_period);
    select json_build_object('state', state, 'period', meterbook.period_terms(the_entity, the_period, moment, breakdowns => false),
      'corrections', (select json_agg(json_build_array(c.day, c.booked_here, c.amount::text, coalesce(c.negative, 0)::text))
                      from meterbook.corrections_of(the_entity, the_period) c where c.day is not null),
      'event_waits', meterbook.event_waits(the_entity, the_period)) into said;
  end if;
  return coalesce(said, json_build_object('state', state));
end $$;

create function meterbook.write_charge(the_entity bigint, the_period bigint, the_kind text, charged bigint, credits bigint, written_off bigint, overage numeric,
                                       grant_ids bigint[], grant_cents bigint[], at timestamptz) returns bigint
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- A charge, the grants that paid part of it, and the outbox row that will invoice the rest, together (I3). A grant that was made after lock_period
-- looked for some to lock may be somebody else's by now, who bills another period: it is locked here, and what was decided is undone if it is spent.
declare charge_id bigint;
begin
  perform meterbook.permitted(write_charge.at);
  perform from meterbook.credit_grant g where g.entity_id = the_entity and g.id = any (grant_ids) order by g.id for update;
  if exists (select from unnest(grant_ids, grant_cents) u(grant_id, cents) join meterbook.grants_of(the_entity) g on g.id = u.grant_id where g.remaining < u.cents) then
    raise exception using errcode = 'serialization_failure', message = 'credit that was to pay this has been spent meanwhile', hint = 'Bill it again.';
  end if;
  insert into meterbook.charge (entity_id, period_id, kind, charged_cents, credits_cents, written_off_cents, overage, at)
  values (the_entity, the_period, the_kind, charged, credits, written_off, write_charge.overage, write_charge.at) returning id into charge_id;
  insert into meterbook.credit_spend (entity_id, grant_id, charge_id, cents, at)
  select the_entity, u.grant_id, charge_id, u.cents, write_charge.at from unnest(grant_ids, grant_cents) u(grant_id, cents);
  perform meterbook.look_again(the_entity, write_charge.at) where the_kind = 'final' and credits > 0;    -- the limit of the next period falls
  if charged > 0 then
    insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
    select the_entity, 'charge', 'charge:' || the_entity || ':' || charge_id,
           jsonb_build_object('charge', charge_id, 'period', the_period, 'kind', the_kind, 'amount_cents', charged,
                              'stripe_customer', coalesce(p.stripe_customer, s.stripe_customer),
                              'stripe_subscription', coalesce(p.stripe_subscription, s.stripe_subscription)), write_charge.at
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
  perform meterbook.permitted(at);
  insert into meterbook.credit_grant (entity_id, grant_key, cents, source, priority, expires_at, granted_at, period_id)
  values (the_entity, grant_key, cents, source, priority, expires_at, at, period) on conflict on constraint credit_grant_is_named_once do nothing;
  if found then
    perform meterbook.look_again(the_entity, at);
    perform meterbook.look_again(the_entity, expires_at) where expires_at > at;      -- the limit falls then, also if nothing is used
    return 'granted';
  end if;
  select g.* into known from meterbook.credit_grant g where g.grant_key = grant_credit.grant_key;
  return case when (known.entity_id, known.cents, known.source, known.priority) = (the_entity, cents, source, priority)
                   and known.expires_at is not distinct from expires_at then 'replayed' else 'conflict' end;
end $$;

create function meterbook.first_grant(grant_key text)
returns table (entity_id bigint, cents bigint, source text, priority integer, expires_at timestamptz)
language sql stable security definer set search_path = meterbook, pg_temp as $$
  -- What the first grant of this key said.
  select g.entity_id, g.cents, g.source, g.priority, g.expires_at from meterbook.credit_grant g where g.grant_key = first_grant.grant_key
$$;

create function meterbook.fence_period(the_entity bigint, the_period bigint) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- From its commit on, recordings treat the period as closed. A recorder never waits for it.
begin
  update meterbook.billing_period p set state = 'sealing' where p.entity_id = the_entity and p.id = the_period and p.state = 'open';
end $$;

create function meterbook.fence_due_period(the_entity bigint, the_period bigint, grace interval, at timestamptz default null) returns text
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- Most closes, in one round trip: fenced, because nothing could defer it, whatever is due | nothing_to_do | undecided: what is due has to be computed first.
declare
  moment timestamptz := coalesce(meterbook.permitted(fence_due_period.at), clock_timestamp());
  state  text := meterbook.lock_period(the_entity, the_period);
  p      meterbook.billing_period;
  s      meterbook.subscription;
begin
  select b.* into p from meterbook.billing_period b where b.entity_id = the_entity and b.id = the_period;
  if state is null or state = 'closed' or moment < p.ends_at + grace
     or exists (select from meterbook.shadowed_entity h where h.entity_id = the_entity) then    -- billed elsewhere still
    return 'nothing_to_do';
  end if;
  select b.* into s from meterbook.subscription b where b.id = p.subscription_id;
  if coalesce(p.stripe_customer, s.stripe_customer) is null or coalesce(p.stripe_subscription, s.stripe_subscription) is null
     or exists (select from meterbook.organization o where o.entity_id = the_entity and o.owner_id is null)
     or meterbook.event_waits(the_entity, the_period) then
    return 'undecided';
  end if;
  perform meterbook.fence_period(the_entity, the_period);
  return 'fenced';
end $$;

create function meterbook.lock_fold() returns void
language sql security definer set search_path = meterbook, pg_temp as $$
  -- Shared with other seals, exclusive of the compactor; in a statement of its own, before anything is read.
  select pg_advisory_xact_lock_shared(5067, 1)
$$;

create function meterbook.unfence_period(the_entity bigint, the_period bigint, reason text, at timestamptz) returns void
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- A close that has to wait: the period takes entries again, and somebody is told, once of each thing that it comes to wait for.
begin
  perform meterbook.permitted(unfence_period.at);
  update meterbook.billing_period p set state = 'open' where p.entity_id = the_entity and p.id = the_period and p.state = 'sealing';
  insert into meterbook.deferred_close as d (entity_id, period_id, reason, since) values (the_entity, the_period, unfence_period.reason, unfence_period.at)
  on conflict (entity_id, period_id) do update set reason = excluded.reason, since = excluded.since where d.reason <> excluded.reason;
  if found then
    insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
    values (the_entity, 'alert', 'deferred:' || the_entity || ':' || the_period || ':' || gen_random_uuid(),
            jsonb_build_object('alert', 'close_deferred', 'period', the_period, 'reason', unfence_period.reason), unfence_period.at);
  end if;
end $$;

create function meterbook.fold_period(the_entity bigint, the_period bigint) returns void
language plpgsql set plan_cache_mode = force_generic_plan as $$
-- Sealed means consumed: the period's visible deltas go into its rollups now; one that becomes visible later is late.
begin
  perform meterbook.fold_deltas(array(select d.ctid from meterbook.usage_delta d where d.entity_id = the_entity and d.period_id = the_period), null, 1000);
end $$;

create function meterbook.seal_period(the_entity bigint, the_period bigint, baseline numeric, refresh numeric, effective numeric, overage numeric, given_back bigint, at timestamptz)
returns void
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- Final figures per entity and actor, kept for good, and the state. Under lock_fold and lock_period, after fold_period and the final charge.
begin
  perform meterbook.permitted(seal_period.at);
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

create function meterbook.charge_and_seal_period(
  the_entity bigint, the_period bigint, charged bigint, credits bigint, written_off bigint, grant_ids bigint[], grant_cents bigint[],
  baseline numeric, refresh numeric, effective numeric, overage numeric, given_back bigint, at timestamptz) returns void
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- The final charge, if there is something to charge, to pay by credits or to write off; then the seal.
begin
  if charged > 0 or credits > 0 or written_off > 0 then
    perform meterbook.write_charge(the_entity, the_period, 'final', charged, credits, written_off, overage, grant_ids, grant_cents, charge_and_seal_period.at);
  end if;
  perform meterbook.seal_period(the_entity, the_period, baseline, refresh, effective, overage, given_back, charge_and_seal_period.at);
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
-- first: what it takes back before, or when, one's own ends goes on. An end that is told counts from when it was told, after what the clock did at that
-- instant: nothing could be taken back before. Says whether there was one.
declare
  s     record;
  taken boolean := false;
begin
  for s in
    select b.id, b.owner_id, b.ended_at
    from meterbook.actor a
    join meterbook.billing_entity own on own.kind = 'user' and own.external_id = a.external_id
    join meterbook.subscription b on b.owner_id = own.id and b.cancelled_by_us and b.status not in ('canceled', 'incomplete_expired')
    left join lateral (
      select max(case when o.status in ('canceled', 'incomplete_expired') then o.updated_at else coalesce(o.ended_at, 'infinity') end) as ended_at,
             max(case when o.status in ('canceled', 'incomplete_expired') then o.updated_at end) as told_at, min(m.joined_at) as joined_at
      from meterbook.member m join meterbook.subscription o on o.owner_id = m.organization_id
      where m.actor_id = a.id and m.left_at is null) organization on true
    where a.id = any (actors) and coalesce(organization.ended_at, at) <= at
      and (b.ended_at > at or (b.ended_at >= organization.ended_at and b.ended_at >= organization.joined_at
                               and (organization.told_at is null or b.ended_at > organization.told_at)))
    order by b.id for no key update of b
  loop
    update meterbook.subscription b set cancel_at_period_end = false, cancelled_by_us = false, ended_at = null where b.id = s.id;
    update meterbook.period_clock c set due_at = at where c.entity_id = s.owner_id and s.ended_at <= at and c.due_at > at;    -- somebody saw it ended
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
  meterbook.admission_terms, meterbook.lock_and_read_gate, meterbook.write_holds, meterbook.lock_hold, meterbook.end_holds, meterbook.lock_period, meterbook.lock_and_read_period,
  meterbook.lock_and_fold_period, meterbook.write_charge,
  meterbook.grant_credit, meterbook.first_grant, meterbook.fence_period, meterbook.fence_due_period, meterbook.unfence_period,
  meterbook.charge_and_seal_period
  to meterbook_writer, meterbook_importer;
grant execute on function meterbook.period_terms, meterbook.recorded_days, meterbook.grants_of, meterbook.held_by, meterbook.corrections_of, meterbook.allowance_of
  to meterbook_reader, meterbook_importer;
