-- The present: every table, index, constraint, function and privilege, as all migrations leave them on PostgreSQL 18, apart from the
-- monthly partitions. To read, not to run. Written by tools/dump_schema.py (make schema), compared in tests/migrations.

CREATE SCHEMA meterbook;

CREATE TYPE meterbook.claimed_delivery AS (
	id bigint,
	lease bigint,
	kind text,
	entity_id bigint,
	entity text,
	payload jsonb,
	created_at timestamp with time zone,
	attempts integer,
	first_try_at timestamp with time zone,
	step text,
	step_since timestamp with time zone,
	round integer,
	invoice text,
	item text,
	ledger uuid,
	currency text,
	period_starts_at timestamp with time zone,
	period_ends_at timestamp with time zone,
	holds jsonb,
	subscription text,
	stripe_subscription text,
	at timestamp with time zone
);

CREATE TYPE meterbook.difference AS (
	claim text,
	entity_id bigint,
	period_id bigint,
	grain text,
	part text,
	detail text,
	ledger_amount numeric,
	derived_amount numeric,
	ledger_entries bigint,
	derived_entries bigint
);

COMMENT ON TYPE meterbook.difference IS 'ledger_…: what the entries say; derived_…: what was found. Null: there is nothing.';

CREATE TYPE meterbook.recorded AS (
	n integer,
	key uuid,
	outcome text,
	entity text,
	period bigint,
	belongs_to bigint,
	amount numeric,
	recorded_at timestamp with time zone
);

COMMENT ON TYPE meterbook.recorded IS 'One answer an entry, n from 1. inserted | replayed | conflict | unattributed (call attribute, with the entity if the answer names one, then again) | in_progress (again later) | not_written (nothing wrong with it, but the call was refused) | unknown_workspace | unknown_entity | attribution_disagrees | period_of_another_payer | occurred_in_the_future | invalid_actor.';

CREATE DOMAIN meterbook.usage_amount AS numeric
	CONSTRAINT usage_log_amount_is_money CHECK (((VALUE <> 'NaN'::numeric) AND (VALUE > '-1000000000000'::numeric) AND (VALUE < '1000000000000'::numeric) AND (VALUE = round(VALUE, 12))));

CREATE DOMAIN meterbook.usage_category AS text
	CONSTRAINT usage_log_category_is_known CHECK ((VALUE = ANY (ARRAY['model'::text, 'fixed'::text, 'tool'::text])));

CREATE DOMAIN meterbook.usage_description AS text
	CONSTRAINT usage_log_description_has_a_length CHECK (((length(VALUE) >= 1) AND (length(VALUE) <= 512)));

CREATE DOMAIN meterbook.usage_metadata AS jsonb
	CONSTRAINT entry_metadata_has_a_depth CHECK ((NOT jsonb_path_exists(VALUE, 'strict $.**{4}?(@.type() == "object" || @.type() == "array")'::jsonpath)))
	CONSTRAINT entry_metadata_has_a_size CHECK ((octet_length((VALUE)::text) <= 4096))
	CONSTRAINT entry_metadata_is_an_object CHECK ((jsonb_typeof(VALUE) = 'object'::text));

CREATE DOMAIN meterbook.usage_source AS text
	CONSTRAINT usage_log_source_has_a_length CHECK (((length(VALUE) >= 1) AND (length(VALUE) <= 128)));

CREATE DOMAIN meterbook.usage_time AS timestamp with time zone
	CONSTRAINT usage_log_occurred_at_is_finite CHECK (((VALUE >= '1970-01-01 00:00:00+00'::timestamp with time zone) AND (VALUE < 'infinity'::timestamp with time zone)));

CREATE FUNCTION meterbook.actors_of(entities bigint[]) RETURNS bigint[]
    LANGUAGE sql STABLE
    AS $$
  -- The users among these entities, as actors.
  select coalesce(array_agg(a.id order by a.id), '{}') from meterbook.billing_entity e join meterbook.actor a on a.external_id = e.external_id
  where e.id = any (entities) and e.kind = 'user'
$$;

CREATE FUNCTION meterbook.add_member(organization text, person text, role text DEFAULT 'member'::text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
declare
  moment     timestamptz := coalesce(meterbook.permitted(add_member.at), clock_timestamp());
  the_entity bigint := meterbook.existing_organization(add_member.organization);
  the_actor  bigint := meterbook.person(add_member.person);
begin
  perform meterbook.lock_members_of(array[the_entity], array[the_actor]);
  perform meterbook.join_organization(the_entity, the_actor, add_member.role, moment);
  perform meterbook.settle_payers(array[the_actor], moment);
end $$;

CREATE FUNCTION meterbook.admission_party(actor text, workspace text, at timestamp with time zone) RETURNS TABLE(outcome text, actor_id bigint, entity_id bigint, home_id bigint, actor_blocked boolean, cap numeric, member_total numeric, member_held numeric)
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION meterbook.admission_terms(actor text, workspace text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS json
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION meterbook.allowance_of(the_subscription text, starts timestamp with time zone, ends timestamp with time zone) RETURNS TABLE(plan text, seats integer, included numeric, refresh_per_day numeric)
    LANGUAGE sql STABLE
    AS $$
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

CREATE TABLE meterbook.subscription (
    id text NOT NULL,
    owner_id bigint NOT NULL,
    plan text NOT NULL,
    plan_rank integer NOT NULL,
    seats integer NOT NULL,
    included numeric,
    refresh_per_day numeric NOT NULL,
    status text NOT NULL,
    begins_at timestamp with time zone NOT NULL,
    starts_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone NOT NULL,
    anchor timestamp with time zone NOT NULL,
    interval_months integer NOT NULL,
    cancel_at_period_end boolean NOT NULL,
    cancelled_by_us boolean DEFAULT false NOT NULL,
    ended_at timestamp with time zone,
    stripe_customer text,
    stripe_subscription text,
    updated_at timestamp with time zone NOT NULL,
    seats_wanted integer,
    CONSTRAINT subscription_included_is_money CHECK (((included >= (0)::numeric) AND (included < '1000000000000'::numeric))),
    CONSTRAINT subscription_interval_positive CHECK ((interval_months > 0)),
    CONSTRAINT subscription_plan_is_not_free CHECK ((plan <> 'free'::text)),
    CONSTRAINT subscription_refresh_is_money CHECK (((refresh_per_day >= (0)::numeric) AND (refresh_per_day < '1000000000000'::numeric))),
    CONSTRAINT subscription_seats_positive CHECK ((seats > 0)),
    CONSTRAINT subscription_seats_wanted_positive CHECK ((seats_wanted > 0)),
    CONSTRAINT subscription_starts_before_it_ends CHECK ((starts_at < ends_at)),
    CONSTRAINT subscription_status_is_known CHECK ((status = ANY (ARRAY['active'::text, 'trialing'::text, 'past_due'::text, 'unpaid'::text, 'paused'::text, 'incomplete'::text, 'incomplete_expired'::text, 'canceled'::text]))),
    CONSTRAINT subscription_times_are_finite CHECK ((isfinite(begins_at) AND isfinite(starts_at) AND isfinite(ends_at) AND isfinite(anchor)))
);

COMMENT ON COLUMN meterbook.subscription.included IS 'Usage that the plan covers in one period for all seats; null: a plan without overage.';

COMMENT ON COLUMN meterbook.subscription.begins_at IS 'Start of its first period; starts_at and ends_at bound the one that was reported last.';

COMMENT ON COLUMN meterbook.subscription.cancelled_by_us IS 'Set to cancel at its period''s end because the organization pays; taken back on leaving.';

COMMENT ON COLUMN meterbook.subscription.seats_wanted IS 'What Stripe was last to be told. `seats` follows Stripe''s own word, so that no seat helps that nobody is asked to pay.';

CREATE FUNCTION meterbook.amend_periods(s meterbook.subscription, previous_owner bigint, effective timestamp with time zone, at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
-- What a subscription now says, applied to its periods that still run: a later start, an end, another owner, or a change between a plan
-- with overage and one without cuts; another end of the same start moves the end; the allowance is recomputed from all that was in force.
-- What is effective at a period's start, or before, replaces what the clock assumed when it opened the period, and cuts nothing.
declare
  p meterbook.billing_period;
  cut timestamptz;
  new_end timestamptz;
begin
  -- an end that moves behind one that the clock has passed: what the clock opened then begins there
  update meterbook.billing_period n set starts_at = s.ends_at, moved = true
  from meterbook.billing_period b
  where b.entity_id = s.owner_id and b.subscription_id = s.id and b.state = 'open' and not b.cut and b.starts_at = s.starts_at and b.ends_at <= at and s.ends_at > at
    and s.interval_months = 1 and n.entity_id = b.entity_id and n.subscription_id = s.id and n.kind = 'dated' and n.state = 'open' and n.starts_at = b.ends_at and n.ends_at > s.ends_at;
  for p in
    select b.* from meterbook.billing_period b
    where b.entity_id in (s.owner_id, previous_owner) and b.subscription_id = s.id and b.state = 'open' order by b.entity_id, b.id for no key update
  loop
    cut := least(case when s.starts_at > p.starts_at then s.starts_at end,
                 s.ended_at,
                 case when p.entity_id <> s.owner_id or effective > p.starts_at and (p.included is null) <> (s.included is null) then effective end);
    if cut < p.ends_at then
      p.ends_at := greatest(cut, p.starts_at + interval '1 microsecond');
      p.cut := p.cut or cut is distinct from s.ended_at or s.status in ('canceled', 'incomplete_expired');    -- an end that is only planned may be taken back
    elsif not p.cut then
      new_end := least((select w.ends_at from meterbook.window_of(s, p.starts_at) w), s.ended_at);
      if p.starts_at >= s.starts_at and p.starts_at < s.ends_at and greatest(new_end, p.ends_at) > at    -- also the rest after a cut
         and not exists (select from meterbook.billing_period n where n.entity_id = p.entity_id and n.subscription_id = s.id and n.kind = 'dated'
                         and n.starts_at >= p.ends_at and n.starts_at < new_end) then
        p.ends_at := greatest(new_end, at);
      end if;
    end if;
    if p.entity_id = s.owner_id then
      select a.plan, a.seats, case when p.cut and a.included is not null then greatest(p.included, a.included) else a.included end,
             case when p.cut then greatest(p.refresh_per_day, a.refresh_per_day) else a.refresh_per_day end    -- a cut takes back nothing
      into p.plan, p.seats, p.included, p.refresh_per_day
      from meterbook.allowance_of(s.id, p.starts_at, p.ends_at) a;
    end if;
    update meterbook.billing_period b set ends_at = p.ends_at, moved = b.moved or p.ends_at <> b.ends_at, cut = p.cut, plan = p.plan, seats = p.seats, included = p.included,
      refresh_per_day = p.refresh_per_day, resting = s.status in ('unpaid', 'paused', 'incomplete')
    where b.entity_id = p.entity_id and b.id = p.id;
  end loop;
end $$;

CREATE FUNCTION meterbook.answer(keys uuid[], fingerprints uuid[], actors text[], amounts numeric[], occurred_ats timestamp with time zone[], workspaces text[], entities text[], periods bigint[], payer_ids bigint[], payer_periods bigint[], payers text[], at timestamp with time zone) RETURNS SETOF meterbook.recorded
    LANGUAGE sql STABLE
    AS $$
  -- Why each entry was not inserted. A key that exists is answered from it, before attribution is looked at.
  select u.n::integer, u.key,
    case
      when k.key is not null and meterbook.same_intent(k, u.fingerprint, u.entity, u.period) then 'replayed'
      when k.key is not null then 'conflict'
      else meterbook.refusal(u.actor, u.occurred_at, u.workspace, u.entity, coalesce(u.period, u.payer_period), u.payer_id, u.payer, at)
    end,
    e.kind || ':' || coalesce(e.external_id, '#' || e.id), k.period_id, k.belongs_to, coalesce(k.amount, u.amount), k.recorded_at
  from unnest(keys, fingerprints, actors, amounts, occurred_ats, workspaces, entities, periods, payer_ids, payer_periods, payers) with ordinality
    u(key, fingerprint, actor, amount, occurred_at, workspace, entity, period, payer_id, payer_period, payer, n)
  left join lateral (select x.* from meterbook.event_key x where x.key = u.key limit 1) k on true
  left join lateral (select b.* from meterbook.billing_entity b where b.id = coalesce(k.entity_id, u.payer_id) limit 1) e on true
  order by u.n
$$;

CREATE FUNCTION meterbook.applied_migrations() RETURNS TABLE(number integer, checksum text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  select m.number, m.checksum from meterbook.migration m order by m.number
$$;

CREATE FUNCTION meterbook.arm_marks(the_entity bigint, the_period bigint) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  delete from meterbook.alert_mark m where m.entity_id = the_entity and m.period_id = the_period
$$;

CREATE FUNCTION meterbook.attribute(actors text[], entities text[] DEFAULT '{}'::text[], workspaces text[] DEFAULT '{}'::text[], at timestamp with time zone DEFAULT NULL::timestamp with time zone, lock_wait_ms integer DEFAULT 2000) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '2s'
    SET jit TO 'off'
    AS $_$
-- First contact, or the clock has moved on: makes sure that the actors, the entities that were named and what pays for them are known and
-- that their periods are open. Call it in a short transaction of its own when record_usage answers `unattributed`, then record again.
declare
  moment timestamptz := coalesce(meterbook.permitted(attribute.at), clock_timestamp());
  known bigint[];
  named bigint[];
  payers bigint[];
  name text;
begin
  if lock_wait_ms <> 2000 then
    perform set_config('lock_timeout', lock_wait_ms || 'ms', true);    -- until the function ends
  end if;
  for name in
    select distinct u.name from (select unnest(actors) union
      select substr(e, 6) from unnest(entities) e where e like 'user:_%' and meterbook.entity_id_of(e) is null) u(name)
    where u.name <> '' and u.name !~ '^#[0-9]+$'      -- nobody, or how one that was erased is shown
      and not exists (select from meterbook.actor a where a.external_id = u.name) order by 1
  loop
    perform meterbook.person(name);
  end loop;
  known := array(select a.id from meterbook.actor a where a.external_id = any (actors));
  named := array(select w.payer_id from meterbook.workspace w where w.external_id = any (workspaces) union select meterbook.entity_id_of(e) from unnest(entities) e);
  perform meterbook.settle_due(known || meterbook.actors_of(named), moment);
  select array_agg(distinct id order by id) into payers from (
    select a.payer_id from meterbook.actor a where a.id = any (known) union select unnest(named)) as p(id)
  where id is not null and not exists (select from meterbook.period_clock c where c.entity_id = p.id and c.due_at > moment);
  if payers is not null then
    perform meterbook.open_periods(payers, moment);
  end if;
end $_$;

CREATE FUNCTION meterbook.begin_act(by_whom text, act text, subject text, said jsonb, request text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  with logged as (
    insert into meterbook.act_log (at, by_whom, act, request)
    values (coalesce(meterbook.permitted(begin_act.at), clock_timestamp()), begin_act.by_whom, begin_act.act, begin_act.request) returning id)
  insert into meterbook.act_detail (act_id, subject, said) select l.id, begin_act.subject, begin_act.said from logged l returning act_id
$$;

CREATE FUNCTION meterbook.begin_cancellations(actors bigint[], at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION meterbook.begin_demo() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- The owner says that what comes is made up. False: somebody is known here, and nobody said so before them.
begin
  update meterbook.ledger l set is_demo = true
  where not l.is_demo and not exists (select from meterbook.billing_entity) and not exists (select from meterbook.event_key);
  return (select l.is_demo from meterbook.ledger l);
end $$;

CREATE FUNCTION meterbook.begin_step(the_id bigint, the_lease bigint, the_step text, the_round integer, invoice text, item text, lease_for interval, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- Written before a step is sent: what came of those before it, and since when this one may be under way. False: the lease was lost.
#variable_conflict use_variable
declare moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
begin
  update meterbook.outbox_delivery d set
    step_since = case when (d.step, d.round) = (the_step, the_round) then d.step_since else moment end,
    step = the_step, round = the_round, invoice = begin_step.invoice, item = begin_step.item, due_at = moment + lease_for
  where d.outbox_id = the_id and d.lease = the_lease and d.state = 'leased';
  return found;
end $$;

CREATE FUNCTION meterbook.billing_differences(the_entity bigint) RETURNS SETOF meterbook.difference
    LANGUAGE sql STABLE
    AS $$
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

CREATE FUNCTION meterbook.block_by_stripe(the_entity bigint, reason text, reference text, event text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- False: it is settled already, or blocks already. One notification a blocking, not an attempt.
#variable_conflict use_variable
declare moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
begin
  perform pg_advisory_xact_lock(5068, hashtext(reference));    -- beside settle_at_stripe: one of the two is first, and the other sees it
  if exists (select from meterbook.stripe_settled t where t.reference = block_by_stripe.reference) then return false; end if;
  if not meterbook.set_block(the_entity, reason, reference, true, moment) then return false; end if;
  insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
  values (the_entity, 'alert', 'block:' || the_entity || ':' || reference || ':' || event,
          jsonb_build_object('alert', reason, 'reference', reference), moment) on conflict do nothing;
  return true;
end $$;

CREATE FUNCTION meterbook.bury_delivery(the_id bigint, the_lease bigint, note text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- Given up: nothing is forgotten, an operator is told, and may send it again.
#variable_conflict use_variable
declare moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
begin
  update meterbook.outbox_delivery d set state = 'dead', lease = null, note = bury_delivery.note, settled_at = moment
  where d.outbox_id = the_id and d.lease = the_lease and d.state = 'leased';
  if not found then return false; end if;
  insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
  select o.entity_id, 'alert', 'dead_letter:' || o.id || ':' || the_lease,
         jsonb_build_object('alert', 'dead_letter', 'outbox', o.id, 'kind', o.kind, 'reason', note), moment
  from meterbook.outbox o where o.id = the_id and o.kind <> 'alert';
  return true;
end $$;

CREATE FUNCTION meterbook.carry_billed(the_entity bigint, the_period bigint, cents bigint, spent bigint, at timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
-- What the product billed of the running period, before it was switched or by an old instance since: counted as billed, with no outbox row, since it
-- has left already. `spent`: what credits paid of it there, taken from the grants here, as far as they go. Under lock_period.
declare
  paid      bigint := least(spent, cents, (select coalesce(sum(g.remaining), 0) from meterbook.grants_of(the_entity) g where g.remaining > 0));
  charge_id bigint;
begin
  if cents <= 0 then return null; end if;
  insert into meterbook.charge (entity_id, period_id, kind, charged_cents, credits_cents, overage, at)
  values (the_entity, the_period, 'carried', carry_billed.cents - paid, paid, carry_billed.cents / 100.0, carry_billed.at) returning id into charge_id;
  insert into meterbook.credit_spend (entity_id, grant_id, charge_id, cents, at)
  select the_entity, g.id, charge_id, least(g.remaining, paid - g.before), carry_billed.at
  from (select x.id, x.remaining,
               coalesce(sum(x.remaining) over (order by x.priority, x.expires_at nulls last, x.granted_at, x.id rows between unbounded preceding and 1 preceding), 0)::bigint as before
        from meterbook.grants_of(the_entity) x where x.remaining > 0) g
  where paid > g.before;
  return charge_id;
end $$;

CREATE FUNCTION meterbook.charge_and_seal_period(the_entity bigint, the_period bigint, charged bigint, credits bigint, written_off bigint, grant_ids bigint[], grant_cents bigint[], baseline numeric, refresh numeric, effective numeric, overage numeric, given_back bigint, at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- The final charge, if there is something to charge, to pay by credits or to write off; then the seal.
begin
  if charged > 0 or credits > 0 or written_off > 0 then
    perform meterbook.write_charge(the_entity, the_period, 'final', charged, credits, written_off, overage, grant_ids, grant_cents, charge_and_seal_period.at);
  end if;
  perform meterbook.seal_period(the_entity, the_period, baseline, refresh, effective, overage, given_back, charge_and_seal_period.at);
end $$;

CREATE FUNCTION meterbook.claim_deliveries(without text[], how_many integer, lease_for interval, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS SETOF meterbook.claimed_delivery
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- Takes what is due, and what a lost worker held longer than its lease. `without`: kinds that this caller has no means to deliver.
-- A cancellation, or a number of seats, is what holds now, not what was said: changes that follow each other quickly converge.
declare moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
begin
  return query
  with taken as (
    select d.outbox_id from meterbook.outbox_delivery d join meterbook.outbox o on o.id = d.outbox_id
    where d.state in ('due', 'leased') and d.due_at <= moment and not o.kind = any (without)
      and not exists (select from meterbook.shadowed_entity s where s.entity_id = o.entity_id and s.since <= o.created_at)    -- billed elsewhere since
    order by d.due_at, d.outbox_id limit how_many for update of d skip locked),
  leased as (
    update meterbook.outbox_delivery d set state = 'leased', lease = nextval('meterbook.outbox_lease'), due_at = moment + lease_for,
      attempts = d.attempts + 1, first_try_at = coalesce(d.first_try_at, moment)
    from taken t where d.outbox_id = t.outbox_id returning d.*)
  select o.id, d.lease, o.kind, o.entity_id, e.kind || ':' || coalesce(e.external_id, '#' || e.id), o.payload, o.created_at, d.attempts, d.first_try_at,
         d.step, d.step_since, d.round, d.invoice, d.item, l.uuid, l.currency,
         p.starts_at, p.ends_at, meterbook.holds_now(o.kind, s), s.id, s.stripe_subscription, moment
  from leased d
  join meterbook.outbox o on o.id = d.outbox_id
  join meterbook.billing_entity e on e.id = o.entity_id
  cross join meterbook.ledger l
  left join meterbook.billing_period p on o.kind = 'charge' and p.entity_id = o.entity_id and p.id = (o.payload ->> 'period')::bigint
  left join meterbook.subscription s on o.kind in ('cancel_at_period_end', 'seats') and s.id = o.payload ->> 'subscription'
  order by o.id;
end $$;

CREATE FUNCTION meterbook.claim_marks(the_entity bigint, the_period bigint, marks smallint[], told smallint, payload jsonb, at timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- Claims marks of the limit and tells about one of them, once. True if this call was the one that tells.
declare new_marks smallint[];
begin
  perform meterbook.permitted(claim_marks.at);
  with claimed as (
    insert into meterbook.alert_mark (entity_id, period_id, mark, claimed_at)
    select the_entity, the_period, m, claim_marks.at from unnest(marks) m order by m on conflict do nothing returning mark)
  select coalesce(array_agg(mark), '{}') into new_marks from claimed;
  if not told = any (new_marks) then return false; end if;
  insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
  values (the_entity, 'alert', 'mark:' || the_entity || ':' || the_period || ':' || told || ':' || gen_random_uuid(),
          claim_marks.payload || jsonb_build_object('alert', 'limit_' || told, 'period', the_period), claim_marks.at);
  return true;
end $$;

CREATE FUNCTION meterbook.clashes_within(written meterbook.recorded[], keys uuid[], fingerprints uuid[], entities text[], periods bigint[]) RETURNS integer[]
    LANGUAGE sql STABLE
    AS $$
  -- Positions whose key was written by this very call, for something else: the same key twice in one call is treated as in two.
  select coalesce(array_agg(u.n::integer), '{}') from unnest(keys, fingerprints, entities, periods) with ordinality u(key, fingerprint, entity, period, n)
  join unnest(written) w on w.key = u.key and w.n <> u.n
  join meterbook.event_key k on k.key = u.key
  where not meterbook.same_intent(k, u.fingerprint, u.entity, u.period)
$$;

CREATE FUNCTION meterbook.compact(deltas_max integer DEFAULT 50000, at timestamp with time zone DEFAULT NULL::timestamp with time zone, descriptions_max integer DEFAULT 1000) RETURNS TABLE(entity_id bigint, deltas bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
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

CREATE FUNCTION meterbook.complete_delivery(the_id bigint, the_lease bigint, note text, sent jsonb DEFAULT NULL::jsonb, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- delivered | again: what was sent no longer holds | lost: somebody else has the lease. A late call of a worker without its lease may have undone
-- a younger one, so it is sent again.
#variable_conflict use_variable
declare
  moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
  holds  jsonb;
begin
  if sent is not null then
    select meterbook.holds_now(o.kind, s) into holds from meterbook.outbox o join meterbook.subscription s on s.id = o.payload ->> 'subscription'
    where o.id = the_id for share of s;
    update meterbook.outbox_delivery d set state = 'due', lease = null, due_at = moment, settled_at = null
    where d.outbox_id = the_id and (holds is distinct from sent or d.lease is distinct from the_lease) and d.state <> 'dead';
    if found then return 'again'; end if;
  end if;
  update meterbook.outbox_delivery d set state = 'delivered', lease = null, note = complete_delivery.note, settled_at = moment
  where d.outbox_id = the_id and d.lease = the_lease and d.state = 'leased';
  return case when found then 'delivered' else 'lost' end;
end $$;

CREATE FUNCTION meterbook.correct_entry(entry uuid, amount numeric, reason text, key uuid, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS meterbook.recorded
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET lock_timeout TO '5s'
    SET jit TO 'off'
    AS $$
-- A new row that points at the entry and keeps its entity, actor, category, source and description, whoever pays now. While the entry's period
-- takes entries it is booked there, on the entry's day; else at home, naming the closed one, and a negative one has no day: it is given back in
-- money. Outcomes: inserted | replayed | conflict | unknown_entry | corrects_a_correction | below_zero | unattributed | in_progress.
#variable_conflict use_variable
declare
  moment  timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
  print   uuid := meterbook.correction_fingerprint(entry, amount, (select l.currency from meterbook.ledger l));
  first   meterbook.event_key;
  said    meterbook.usage_log;
  late    meterbook.late_entry;
  stamped meterbook.billing_period;
  home    meterbook.period_clock;
  name    text;
  violated text;
  own_day integer;
begin
  if coalesce(amount, 0) = 0 or coalesce(reason, '') = '' then
    raise exception using errcode = 'MB050', message = 'a correction has an amount other than 0, and a reason',
      hint = 'Pass what is to be added to the entry, negative to take back, and why.';
  end if;
  select k.* into first from meterbook.event_key k where k.key = correct_entry.entry;
  if not found then return row(1, key, 'unknown_entry', null, null, null, amount, null)::meterbook.recorded; end if;
  name := (select e.kind || ':' || coalesce(e.external_id, '#' || e.id) from meterbook.billing_entity e where e.id = first.entity_id);
  select l.* into said from meterbook.usage_log l where l.entity_id = first.entity_id and l.recorded_at = first.recorded_at and l.key = first.key;
  if said.corrects is not null and not exists (select from meterbook.event_key k where k.key = correct_entry.key) then    -- else a conflict, and counted
    return row(1, key, 'corrects_a_correction', name, first.period_id, null, amount, null)::meterbook.recorded;
  end if;
  select e.* into late from meterbook.late_entry e where e.entity_id = first.entity_id and e.key = first.key;
  select p.* into stamped from meterbook.billing_period p where p.entity_id = first.entity_id and p.id = coalesce(late.booked, said.period_id);
  if amount < 0 and stamped.state = 'open' then      -- a close waits for it: money that comes back is never late
    select p.* into stamped from meterbook.billing_period p where p.entity_id = stamped.entity_id and p.id = stamped.id for share;
  end if;
  said.period_id := stamped.id;
  said.day := coalesce(late.day, said.day);
  own_day := said.day;
  said.belongs_to := case when late.booked is not null then late.stamped else said.belongs_to end;
  if stamped.state <> 'open' then
    select c.* into home from meterbook.period_clock c where c.entity_id = first.entity_id and c.due_at > moment;
    said.period_id := home.home_id;
    said.belongs_to := stamped.id;
    said.day := case when amount > 0 or exists (     -- late itself, although it was not folded yet: there is nothing to give back
        select from meterbook.usage_delta d
        where d.entity_id = first.entity_id and d.period_id = stamped.id and entry = any (d.keys) and stamped.state = 'closed')
      then meterbook.day_in(said.occurred_at, home.home_starts_at, home.home_ends_at) end;
  end if;
  begin
    if said.period_id is not null then
      insert into meterbook.event_key (key, fingerprint, entity_id, period_id, belongs_to, amount, recorded_at)
      values (key, print, said.entity_id, said.period_id, said.belongs_to, amount, moment) on conflict do nothing;
    end if;
    if said.period_id is null or not found then
      select k.* into first from meterbook.event_key k where k.key = correct_entry.key;
      if first.fingerprint <> print then
        insert into meterbook.key_conflict (key, at, first_said, then_said)
        select key, moment, jsonb_build_object('corrects', l.corrects, 'amount', l.amount::text, 'source', l.source, 'description', l.description),
          jsonb_build_object('corrects', entry, 'amount', amount::text)
        from meterbook.usage_log l where l.entity_id = first.entity_id and l.recorded_at = first.recorded_at and l.key = first.key;
      end if;
      return row(1, key, case when first.fingerprint = print then 'replayed' when first.key is not null then 'conflict' else 'unattributed' end,
                 name, first.period_id, first.belongs_to, coalesce(first.amount, amount), first.recorded_at)::meterbook.recorded;
    end if;
    -- Two statements: a check is applied to the row that an insert proposes, also when it then becomes an update.
    insert into meterbook.entry_correction (entity_id, key, original, corrected) values (said.entity_id, entry, said.amount, 0)
    on conflict on constraint entry_correction_pkey do nothing;
    update meterbook.entry_correction c set corrected = c.corrected + amount where c.entity_id = said.entity_id and c.key = entry;
    insert into meterbook.correction (entity_id, key, corrects, of_period, of_day, booked, amount)
    values (said.entity_id, key, entry, stamped.id, own_day, said.period_id, amount);
    insert into meterbook.usage_log (entity_id, recorded_at, key, period_id, belongs_to, day, actor_id, occurred_at, amount, category, source,
      description, workspace, workflow, execution, source_reference, line, corrects, reason)
    values (said.entity_id, moment, key, said.period_id, said.belongs_to, said.day, said.actor_id, said.occurred_at, amount, said.category, said.source,
      said.description, said.workspace, said.workflow, said.execution, said.source_reference, said.line, entry, reason);
    insert into meterbook.usage_delta (entity_id, period_id, day, actor_id, source, description, amount, entries, digest, keys, recorded_at)
    values (said.entity_id, said.period_id, said.day, said.actor_id, said.source, said.description, amount, 1, meterbook.key_weight(key) * amount,
      array[key], moment);
  exception
    when check_violation then
      get stacked diagnostics violated = constraint_name;
      if violated <> 'entry_correction_leaves_nothing_below_zero' then raise; end if;
      return row(1, key, 'below_zero', name, said.period_id, null, amount, null)::meterbook.recorded;
    when lock_not_available then
      return row(1, key, 'in_progress', name, null, null, amount, null)::meterbook.recorded;
  end;
  return row(1, key, 'inserted', name, said.period_id, said.belongs_to, amount, moment)::meterbook.recorded;
end $$;

CREATE FUNCTION meterbook.correction_differences(the_entity bigint) RETURNS SETOF meterbook.difference
    LANGUAGE sql STABLE
    AS $$
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

CREATE FUNCTION meterbook.correction_fingerprint(entry uuid, amount numeric, currency text DEFAULT 'USD'::text) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
  select encode(substr(sha256(convert_to('meterbook.correction.1,' || meterbook.digest_field(entry::text)
    || meterbook.digest_field(trim_scale(amount)::text) || meterbook.digest_field(currency), 'UTF8')), 1, 16), 'hex')::uuid
$$;

CREATE FUNCTION meterbook.corrections_of(the_entity bigint, the_period bigint) RETURNS TABLE(day integer, booked_here boolean, amount numeric, negative numeric)
    LANGUAGE sql STABLE
    AS $$
  -- Corrections of a period's entries, on the entries' days; those booked elsewhere came after it was closed.
  select c.of_day, c.booked = the_period, sum(c.amount), sum(c.amount) filter (where c.amount < 0)
  from meterbook.correction c where c.entity_id = the_entity and c.of_period = the_period group by 1, 2
$$;

CREATE FUNCTION meterbook.day_in(occurred timestamp with time zone, starts timestamp with time zone, ends timestamp with time zone) RETURNS integer
    LANGUAGE sql IMMUTABLE
    AS $$
  -- Buckets of 24 hours from the period's start, clamped into the period. Written with immutable operators only (timestamptz - interval is
  -- not), so that it is inlined: called, it is a tenth of a batch.
  select floor(extract(epoch from least(greatest(occurred, starts) - starts, ends - starts - interval '1 microsecond')) / 86400)::integer
$$;

CREATE FUNCTION meterbook.debtors_of_invoice(the_invoice text) RETURNS bigint[]
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- Whose charge an invoice of ours asks for: who was charged (I1), also where the subscription has passed to another owner since.
  select coalesce(array_agg(distinct o.entity_id order by o.entity_id), '{}')
  from meterbook.outbox_delivery d join meterbook.outbox o on o.id = d.outbox_id and o.kind = 'charge' where d.invoice = the_invoice
$$;

CREATE FUNCTION meterbook.decide_payers(actors bigint[], at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
-- Writes down who pays for each actor. The rows are locked in a statement of their own: the next one's snapshot is then younger than
-- every change that held them.
begin
  perform from meterbook.actor a where a.id = any (actors) order by a.id for no key update;
  update meterbook.actor a set payer_id = p.entity_id, payer_until = p.until
  from unnest(actors) as wanted(id) cross join lateral meterbook.payer_of(wanted.id, at) p
  where a.id = wanted.id and (a.payer_id, a.payer_until) is distinct from (p.entity_id, p.until);
end $$;

CREATE FUNCTION meterbook.delete_organization(organization text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- Ends its subscription; the members fall back as on leaving. Its rows stay.
declare
  moment     timestamptz := coalesce(meterbook.permitted(delete_organization.at), clock_timestamp());
  the_entity bigint := meterbook.existing_organization(delete_organization.organization);
  affected   bigint[];
begin
  perform from meterbook.billing_entity e where e.id = the_entity for no key update;
  perform from meterbook.organization o where o.entity_id = the_entity for update;
  perform from meterbook.member m where m.organization_id = the_entity and m.left_at is null order by m.id for no key update;
  affected := meterbook.lock_members_of(array[the_entity]);
  update meterbook.member m set left_at = greatest(moment, m.joined_at) where m.organization_id = the_entity and m.left_at is null;
  delete from meterbook.member_cap c where c.organization_id = the_entity;
  delete from meterbook.organization o where o.entity_id = the_entity;
  perform meterbook.end_subscriptions(the_entity, moment);
  perform meterbook.settle_payers(affected, moment);
end $$;

CREATE FUNCTION meterbook.delete_user(person text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- Erases what the surrogates stood for, and no row. Leaves the organization first; its owner can't be deleted.
declare
  moment     timestamptz := coalesce(meterbook.permitted(delete_user.at), clock_timestamp());
  the_entity bigint := meterbook.entity_id_of('user:' || delete_user.person);
  the_actor  bigint := (select a.id from meterbook.actor a where a.external_id = delete_user.person);
  its_organization text;
  organization_id  bigint;
begin
  if the_actor is null then
    raise exception using errcode = 'MB020', message = format('user %L is not known', delete_user.person);
  end if;
  select e.external_id, e.id into its_organization, organization_id from meterbook.member m join meterbook.billing_entity e on e.id = m.organization_id
  where m.actor_id = the_actor and m.left_at is null;
  perform from meterbook.billing_entity e where e.id in (the_entity, organization_id) order by e.id for no key update;
  perform from meterbook.member m where m.actor_id = the_actor and m.left_at is null for no key update;
  perform meterbook.lock_members_of(array_remove(array[the_entity, organization_id], null));
  if its_organization is not null then
    perform meterbook.remove_member(its_organization, delete_user.person, moment);
  end if;
  perform meterbook.end_subscriptions(the_entity, moment);
  update meterbook.entity_limit l set set_by = '#' || the_actor where l.set_by = delete_user.person;
  perform meterbook.erase_stripe_events(the_entity);
  perform meterbook.erase_acts(delete_user.person, the_actor);
  update meterbook.actor a set external_id = null, payer_id = the_entity, payer_until = 'infinity' where a.id = the_actor;
  update meterbook.billing_entity e set external_id = null where e.id = the_entity;
end $$;

CREATE FUNCTION meterbook.differences(the_entity bigint DEFAULT NULL::bigint) RETURNS SETOF meterbook.difference
    LANGUAGE sql STABLE
    SET jit TO 'off'
    AS $$
  select d.* from (
    select * from meterbook.rollup_differences(the_entity) union all select * from meterbook.entry_differences(the_entity)
    union all select * from meterbook.correction_differences(the_entity) union all select * from meterbook.billing_differences(the_entity)) d
  order by d.entity_id, d.period_id, d.grain, d.part, d.detail
$$;

CREATE FUNCTION meterbook.digest_field(field text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  -- Length-prefixed, so that no crafted text runs into its neighbour; null is unlike every text.
  select case when field is null then '-' else octet_length(field) || ':' || field end || ','
$$;

CREATE FUNCTION meterbook.dismiss_stripe_event(the_id text, why text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- An operator decides that an event that could not be applied is to have no effect. Gives the state that it had: only one that waits is dismissed.
declare
  moment      timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
  found_state text;
begin
  found_state := meterbook.lock_stripe_event(the_id);
  if found_state in ('pending', 'failed') then
    perform meterbook.finish_stripe_event(the_id, 'ignored', 'dismissed: ' || why, moment);
  end if;
  return found_state;
end $$;

CREATE FUNCTION meterbook.disown_cancellation(the_subscription text) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- We had it cancelled, Stripe had heard so, and somebody took it back there: their own doing, and it stays.
  update meterbook.subscription s set cancelled_by_us = false where s.id = the_subscription
$$;

CREATE FUNCTION meterbook.end_act(the_act bigint, outcome text, code text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  insert into meterbook.act_outcome (act_id, at, outcome, code)
  values (the_act, coalesce(meterbook.permitted(end_act.at), clock_timestamp()), end_act.outcome, end_act.code) on conflict do nothing
$$;

CREATE FUNCTION meterbook.end_api_key(the_id bigint, ends_at timestamp with time zone, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
  -- Now (`ends_at` null), or at a time, unless it ends sooner anyway. Null: there is no such key. False: it has ended already.
  with found as (
    select k.id, k.revoked_at is null and (k.expires_at is null or k.expires_at > coalesce(meterbook.permitted(at), clock_timestamp())) as lives
    from meterbook.api_key k where k.id = the_id for update),
  ended as (
    update meterbook.api_key k set
      revoked_at = case when ends_at is null then coalesce(meterbook.permitted(at), clock_timestamp()) end,
      expires_at = case when ends_at is null then k.expires_at else least(k.expires_at, ends_at) end
    from found f where f.lives and k.id = f.id returning k.id)
  select f.lives from found f left join ended e on e.id = f.id
$$;

CREATE FUNCTION meterbook.end_holds(hold_keys text[], hows text[], settle_keys uuid[], settleds numeric[], at timestamp with time zone) RETURNS TABLE(n integer, outcome text, entity_id bigint, actor text, workspace text, first_key uuid, first_settled numeric)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION meterbook.end_stripe_subscription(the_id text, ended_at timestamp with time zone, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- An end needs neither price nor plan: what is known of the subscription holds until then.
#variable_conflict use_variable
declare s meterbook.subscription;
begin
  perform meterbook.permitted(at);
  select b.* into s from meterbook.subscription b where b.stripe_subscription = the_id or b.id = the_id
  order by b.stripe_subscription = the_id desc nulls last, b.id limit 1;
  perform meterbook.put_subscription(s.id, e.kind || ':' || e.external_id, s.plan, s.plan_rank, s.seats, s.included, s.refresh_per_day, 'canceled',
    s.starts_at, s.ends_at, s.interval_months, s.anchor, s.cancel_at_period_end, effective_at => ended_at, at => at)
  from meterbook.billing_entity e where e.id = s.owner_id and not meterbook.is_gone(e);
end $$;

CREATE FUNCTION meterbook.end_subscriptions(the_entity bigint, at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
-- Ends what an entity is subscribed to, now: a cut; and Stripe is told to.
declare
  s meterbook.subscription;
  affected bigint[] := meterbook.lock_members_of(array[the_entity]);
begin
  perform meterbook.settle_due(affected, end_subscriptions.at);
  for s in select b.* from meterbook.subscription b
           where b.owner_id = the_entity and b.status not in ('canceled', 'incomplete_expired') order by b.id for update
  loop
    update meterbook.subscription b set status = 'canceled', ended_at = least(coalesce(b.ended_at, end_subscriptions.at), end_subscriptions.at), updated_at = end_subscriptions.at
    where b.id = s.id returning b.* into s;
    perform meterbook.amend_periods(s, s.owner_id, end_subscriptions.at, end_subscriptions.at);
    insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
    select s.owner_id, 'cancel_now', 'cancel_now:' || s.id || ':' || gen_random_uuid(),
           jsonb_build_object('subscription', s.id, 'stripe_subscription', s.stripe_subscription), end_subscriptions.at
    where s.stripe_subscription is not null;      -- else Stripe renews and charges for ever
  end loop;
  perform meterbook.open_periods(array[the_entity], end_subscriptions.at);
  perform meterbook.settle_payers(affected, end_subscriptions.at);
end $$;

CREATE TABLE meterbook.hold (
    hold_key text NOT NULL,
    entity_id bigint NOT NULL,
    actor_id bigint NOT NULL,
    workspace text,
    amount numeric NOT NULL,
    granted_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    state text DEFAULT 'active'::text NOT NULL,
    ended_at timestamp with time zone,
    settled numeric,
    settle_key uuid,
    CONSTRAINT hold_amount_is_money CHECK (((amount > (0)::numeric) AND (amount < '1000000000000'::numeric))),
    CONSTRAINT hold_state_is_known CHECK ((state = ANY (ARRAY['active'::text, 'settled'::text, 'released'::text, 'expired'::text])))
);

CREATE FUNCTION meterbook.ending_of(h meterbook.hold, how text, settle_key uuid, settled numeric, at timestamp with time zone) RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $$
  -- What ending a hold comes to: active (it ends now) | settled | released | expired (it was dead already; its settle is kept) | replayed (the same
  -- settle again) | conflict (another settle) | unknown.
  select case
    when h.hold_key is null then 'unknown'
    when how = 'settled' and h.settle_key is not null and (h.settle_key, h.settled) is distinct from (ending_of.settle_key, ending_of.settled) then 'conflict'
    when how = 'settled' and h.state = 'settled' then 'replayed'
    when h.state = 'active' and h.expires_at <= ending_of.at then 'expired'
    else h.state end
$$;

CREATE FUNCTION meterbook.ensure_partitions(months_ahead integer DEFAULT 12, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '200ms'
    SET "TimeZone" TO 'UTC'
    AS $$
-- Makes the monthly partitions of usage_log from the month of `at` on. Built apart and then attached: "create … partition of"
-- would stop every recorder behind one open transaction. Gives the number made; one that can't be attached now is left to the next call.
declare
  made integer := 0;
  first_month timestamptz := date_trunc('month', coalesce(meterbook.permitted(at), clock_timestamp()));
  first_day timestamptz;
  name text;
begin
  if not pg_try_advisory_xact_lock(5067, 2) then return 0; end if;
  for first_day in
    select generate_series(first_month, first_month + make_interval(months => least(months_ahead, 24)), '1 month')
  loop
    name := to_char(first_day, '"usage_log_y"YYYY"m"MM');
    continue when to_regclass('meterbook.' || name) is not null;
    begin
      execute format('create table meterbook.%I (like meterbook.usage_log including all, check (recorded_at >= %L and recorded_at < %L))',
                     name, first_day, first_day + interval '1 month');
      execute format('create trigger usage_log_is_not_truncated before truncate on meterbook.%I for each statement execute function meterbook.refuse_change()', name);
      execute format('alter table meterbook.%I enable always trigger usage_log_is_not_truncated', name);
      execute format('alter table meterbook.usage_log attach partition meterbook.%I for values from (%L) to (%L)',
                     name, first_day, first_day + interval '1 month');
      execute format('alter table meterbook.%I enable always trigger usage_log_is_append_only', name);
      execute format('alter table meterbook.%I drop constraint %I', name, name || '_recorded_at_check');
      made := made + 1;
    exception
      when check_violation then null;          -- rows of that month lie in the default partition: recorders go on, doctor tells
      when lock_not_available then exit;       -- a reader holds it: who reads next has waited once behind us, and not once a month
    end;
  end loop;
  return made;
end $$;

CREATE FUNCTION meterbook.entity_id_of(entity text) RETURNS bigint
    LANGUAGE sql STABLE
    AS $_$
  -- The surrogate of "user:<id>" or "organization:<id>", or of one that was erased, as our answers name it: "user:#<surrogate>". Null if it was
  -- never heard of.
  select coalesce(
    (select e.id from meterbook.billing_entity e
     where e.kind = split_part(entity, ':', 1) and e.external_id = substr(entity, strpos(entity, ':') + 1)),
    (select e.id from meterbook.billing_entity e
     where e.id = case when entity ~ '^[a-z]+:#[0-9]{1,18}$' then split_part(entity, '#', 2)::bigint end
       and e.kind = split_part(entity, ':', 1) and e.external_id is null))
$_$;

CREATE FUNCTION meterbook.entry_differences(the_entity bigint) RETURNS SETOF meterbook.difference
    LANGUAGE sql STABLE
    AS $$
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

CREATE FUNCTION meterbook.erase_acts(person text, the_actor bigint) RETURNS void
    LANGUAGE sql
    AS $$
  -- A person who is deleted: where acts name them, as subject or in a field that names somebody, stands their surrogate.
  update meterbook.act_detail d set
    subject = case when d.subject = 'user:' || person then 'user:#' || the_actor else d.subject end,
    said = (select coalesce(jsonb_object_agg(f.key, case
              when f.key in ('user', 'by', 'owner', 'entity', 'payer') and f.value = to_jsonb(person) then to_jsonb('#' || the_actor)
              when f.key in ('user', 'by', 'owner', 'entity', 'payer') and f.value = to_jsonb('user:' || person) then to_jsonb('user:#' || the_actor)
              else f.value end), '{}') from jsonb_each(d.said) f)
  where d.subject = 'user:' || person
     or exists (select from jsonb_each_text(d.said) f where f.key in ('user', 'by', 'owner', 'entity', 'payer') and f.value in (person, 'user:' || person))
$$;

CREATE FUNCTION meterbook.erase_stripe_event(the_id text) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- What Stripe wrote of a person who was deleted: the event stays, as one that was settled, and says nothing any more.
  update meterbook.stripe_event e set
    body = jsonb_build_object('id', e.id, 'type', e.type, 'created', extract(epoch from e.created_at)::bigint, 'data', '{"object": {}}'::jsonb, 'erased', true)::text,
    state = case when e.settled_at is null then 'ignored' else e.state end,
    settled_at = coalesce(e.settled_at, e.received_at),
    note = 'erased: its owner was deleted here'
  where e.id = the_id
$$;

CREATE FUNCTION meterbook.erase_stripe_events(the_entity bigint) RETURNS void
    LANGUAGE sql
    AS $$
  -- All that names a person's subscriptions, the customers at Stripe that nobody else pays with, or the person.
  with said as (
    select b.stripe_subscription as name from meterbook.subscription b where b.owner_id = the_entity
    union select b.id from meterbook.subscription b where b.owner_id = the_entity
    union select b.stripe_customer from meterbook.subscription b where b.owner_id = the_entity
      and not exists (select from meterbook.subscription o where o.stripe_customer = b.stripe_customer and o.owner_id <> the_entity)
    union select e.kind || ':' || e.external_id from meterbook.billing_entity e where e.id = the_entity)
  select meterbook.erase_stripe_event(e.id) from meterbook.stripe_event e
  where exists (select from said s where strpos(e.body, to_json(s.name)::text) > 0);
  update meterbook.stripe_subscription k set owner_said = null
  where k.id in (select coalesce(b.stripe_subscription, b.id) from meterbook.subscription b where b.owner_id = the_entity)
$$;

CREATE FUNCTION meterbook.event_key(event_key text) RETURNS uuid
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
-- The stored key of a caller's event_key: the first 16 bytes of SHA-256 of its canonical encoding.
begin
  if length(event_key) not between 1 and 512 then
    raise exception using errcode = 'MB050', message = format('an event_key has 1 to 512 characters, this one %s', length(event_key)),
      hint = 'Name the intent to charge: the run, the step, the model.';
  end if;
  return encode(substr(sha256(convert_to('meterbook.event_key.1,' || meterbook.digest_field(event_key), 'UTF8')), 1, 16), 'hex')::uuid;
end $$;

CREATE FUNCTION meterbook.event_waits(the_entity bigint, the_period bigint) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- Whether Stripe told something of a period's subscription, before the period's end, that could not be applied: what it includes is not known then.
  select exists (
    select from meterbook.billing_period p
    join meterbook.subscription s on s.id = p.subscription_id
    join meterbook.stripe_event e on e.state in ('pending', 'failed') and e.created_at < p.ends_at
      and e.subject in (s.id, s.stripe_subscription, p.stripe_subscription) and starts_with(e.type, 'customer.subscription.')
    where p.entity_id = the_entity and p.id = the_period)
$$;

CREATE FUNCTION meterbook.existing_organization(organization text) RETURNS bigint
    LANGUAGE plpgsql STABLE
    AS $$
declare found_id bigint;
begin
  select e.id into found_id from meterbook.billing_entity e join meterbook.organization o on o.entity_id = e.id
  where e.kind = 'organization' and e.external_id = organization;
  if found_id is null then
    raise exception using errcode = 'MB020', message = format('organization %L is not known', organization), hint = 'Call put_organization first.';
  end if;
  return found_id;
end $$;

CREATE FUNCTION meterbook.expect_delivery() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
begin
  insert into meterbook.outbox_delivery (outbox_id, due_at) values (new.id, new.created_at);
  return null;
end $$;

CREATE FUNCTION meterbook.fence_due_period(the_entity bigint, the_period bigint, grace interval, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
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

CREATE FUNCTION meterbook.fence_period(the_entity bigint, the_period bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- From its commit on, recordings treat the period as closed. A recorder never waits for it.
begin
  update meterbook.billing_period p set state = 'sealing' where p.entity_id = the_entity and p.id = the_period and p.state = 'open';
end $$;

CREATE TABLE meterbook.api_key (
    id bigint NOT NULL,
    prefix text NOT NULL,
    digest bytea NOT NULL,
    name text NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamp with time zone NOT NULL,
    created_by text NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    replaces bigint,
    CONSTRAINT api_key_digest_is_sha256 CHECK ((octet_length(digest) = 32)),
    CONSTRAINT api_key_name_has_a_length CHECK (((length(name) >= 1) AND (length(name) <= 255))),
    CONSTRAINT api_key_prefix_is_hexadecimal CHECK ((prefix ~ '^[0-9a-f]{12}$'::text)),
    CONSTRAINT api_key_scopes_are_known CHECK (((scopes <@ ARRAY['record'::text, 'read'::text, 'admin'::text]) AND (cardinality(scopes) > 0)))
);

COMMENT ON TABLE meterbook.api_key IS 'Keys of the HTTP door. `prefix` is shown, `digest` is the SHA-256 of the whole key, which nobody has but who was given it.';

COMMENT ON COLUMN meterbook.api_key.last_used_at IS 'To the minute.';

CREATE FUNCTION meterbook.find_api_key(the_prefix text) RETURNS SETOF meterbook.api_key
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  select k.* from meterbook.api_key k where k.prefix = the_prefix
$$;

CREATE FUNCTION meterbook.fingerprint(actor text, category text, source text, description text, amount numeric, currency text DEFAULT 'USD'::text) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
  -- What the first writer of a key said, amount by value (1.0 = 1.00).
  select encode(substr(sha256(convert_to('meterbook.fingerprint.1,' || meterbook.digest_field(actor) || meterbook.digest_field(category)
    || meterbook.digest_field(source) || meterbook.digest_field(description) || meterbook.digest_field(trim_scale(amount)::text)
    || meterbook.digest_field(currency), 'UTF8')), 1, 16), 'hex')::uuid
$$;

CREATE FUNCTION meterbook.finish_stripe_event(the_id text, the_state text, the_note text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- What came of it. One that has been applied can't fail any more.
declare moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
begin
  update meterbook.stripe_event e set state = the_state, note = the_note, attempts = e.attempts + 1,
    settled_at = case when the_state <> 'failed' then moment end
  where e.id = the_id and e.settled_at is null;
end $$;

CREATE FUNCTION meterbook.first_flush(request text) RETURNS TABLE(actor text, category text, source text, description text, total numeric, entity text, workspace text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- What a running total is bound to, and how far it has come.
  select coalesce(a.external_id, '#' || a.id), r.category, r.source, r.description, r.total, e.kind || ':' || coalesce(e.external_id, '#' || e.id), r.workspace
  from meterbook.cumulative_request r join meterbook.actor a on a.id = r.actor_id join meterbook.billing_entity e on e.id = r.entity_id
  where r.request = encode(substr(sha256(convert_to('meterbook.request.1,' || meterbook.digest_field(first_flush.request), 'UTF8')), 1, 16), 'hex')::uuid
$$;

CREATE FUNCTION meterbook.first_grant(grant_key text) RETURNS TABLE(entity_id bigint, cents bigint, source text, priority integer, expires_at timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- What the first grant of this key said.
  select g.entity_id, g.cents, g.source, g.priority, g.expires_at from meterbook.credit_grant g where g.grant_key = first_grant.grant_key
$$;

CREATE FUNCTION meterbook.first_said(keys uuid[]) RETURNS TABLE(key uuid, actor text, category text, source text, description text, amount numeric, entity text, period bigint, corrects uuid)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- What the first writers of these keys said.
  select k.key, coalesce(a.external_id, '#' || l.actor_id), l.category, l.source, l.description, l.amount,
         e.kind || ':' || coalesce(e.external_id, '#' || e.id), coalesce(k.belongs_to, k.period_id), l.corrects
  from meterbook.event_key k
  join meterbook.usage_log l on l.entity_id = k.entity_id and l.recorded_at = k.recorded_at and l.key = k.key
  join meterbook.actor a on a.id = l.actor_id
  join meterbook.billing_entity e on e.id = k.entity_id
  where k.key = any (keys)
$$;

CREATE FUNCTION meterbook.fold_deltas(picked tid[], moment timestamp with time zone, descriptions_max integer) RETURNS TABLE(entity_id bigint, deltas bigint)
    LANGUAGE plpgsql
    SET search_path TO 'meterbook', 'pg_temp'
    SET jit TO 'off'
    SET enable_nestloop TO 'off'
    SET work_mem TO '64MB'
    AS $$
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

CREATE FUNCTION meterbook.fold_period(the_entity bigint, the_period bigint) RETURNS void
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
-- Sealed means consumed: the period's visible deltas go into its rollups now; one that becomes visible later is late.
begin
  perform meterbook.fold_deltas(array(select d.ctid from meterbook.usage_delta d where d.entity_id = the_entity and d.period_id = the_period), null, 1000);
end $$;

CREATE FUNCTION meterbook.forget_moved(the_entity bigint, ids bigint[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  delete from meterbook.moved_entity m where m.entity_id = the_entity and m.id = any (ids)
$$;

CREATE TABLE meterbook.billing_entity (
    id bigint NOT NULL,
    kind text NOT NULL,
    external_id text,
    CONSTRAINT billing_entity_external_id_is_no_surrogate CHECK ((external_id !~ '^#[0-9]+$'::text)),
    CONSTRAINT billing_entity_external_id_is_not_empty CHECK ((external_id <> ''::text)),
    CONSTRAINT billing_entity_kind_is_known CHECK ((kind = ANY (ARRAY['user'::text, 'organization'::text])))
);

COMMENT ON TABLE meterbook.billing_entity IS 'Who pays. The surrogate stands in every row; the outside id only here, so that it can be erased. Who was is shown as #<id>.';

CREATE FUNCTION meterbook.goes_by(e meterbook.billing_entity, name text) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $$
  -- Whether an attribution calls its payer by its name. One that was erased since has none any more, and pays all the same.
  select e.kind = split_part(name, ':', 1) and (e.external_id is null or e.external_id = substr(name, strpos(name, ':') + 1))
$$;

CREATE FUNCTION meterbook.goes_home(asked bigint, happened timestamp with time zone, home_since timestamp with time zone) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $$
  -- An entry of the running period needs no search for its period. By its own time alone: another's clock may already have opened the next.
  select asked is null and happened >= home_since
$$;

CREATE FUNCTION meterbook.grant_credit(the_entity bigint, grant_key text, cents bigint, source text, priority integer, expires_at timestamp with time zone, period bigint, at timestamp with time zone) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
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

CREATE FUNCTION meterbook.grants_of(the_entity bigint) RETURNS TABLE(id bigint, grant_key text, cents bigint, remaining bigint, source text, priority integer, expires_at timestamp with time zone, granted_at timestamp with time zone, period_id bigint)
    LANGUAGE sql STABLE
    AS $$
  select g.id, g.grant_key, g.cents,
         g.cents - coalesce((select sum(s.cents) from meterbook.credit_spend s where s.entity_id = the_entity and s.grant_id = g.id), 0)::bigint,
         g.source, g.priority, g.expires_at, g.granted_at, g.period_id
  from meterbook.credit_grant g where g.entity_id = the_entity
$$;

CREATE FUNCTION meterbook.held_by(the_entity bigint, at timestamp with time zone) RETURNS numeric
    LANGUAGE plpgsql STABLE
    AS $$
-- Active holds: the gate's count, less those that ended since and those that have run out. No gate: nothing was ever held.
declare counted numeric;
begin
  select g.held into counted from meterbook.hold_gate g where g.entity_id = the_entity;
  if not found then return 0; end if;
  return counted
       - coalesce((select sum(n.amount) from meterbook.hold_end n where n.entity_id = the_entity), 0)
       - coalesce((select sum(h.amount) from meterbook.hold h where h.entity_id = the_entity and h.state = 'active' and h.expires_at <= at), 0);
end $$;

CREATE FUNCTION meterbook.hold_segment(s meterbook.subscription, at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
-- The last segment is what the subscription is by its newest word: from `at` on, where an older word was of a later instant.
begin
  insert into meterbook.subscription_segment (owner_id, subscription_id, effective_at, plan, seats, included, refresh_per_day, noted_at)
  select s.owner_id, s.id, greatest(at, g.effective_at), s.plan, s.seats, s.included, s.refresh_per_day, at
  from (select x.* from meterbook.subscription_segment x where x.subscription_id = s.id order by x.effective_at desc, x.id desc limit 1) g
  where (s.plan, s.seats, s.included, s.refresh_per_day) is distinct from (g.plan, g.seats, g.included, g.refresh_per_day);
end $$;

CREATE FUNCTION meterbook.holds_now(the_kind text, s meterbook.subscription) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$
  -- What a row of the outbox of this kind has to say of a subscription, as it is at this moment.
  select case the_kind when 'cancel_at_period_end' then to_jsonb(s.cancel_at_period_end) when 'seats' then to_jsonb(s.seats_wanted) end
$$;

CREATE TABLE meterbook.period_clock (
    entity_id bigint NOT NULL,
    due_at timestamp with time zone NOT NULL,
    home_id bigint NOT NULL,
    home_since timestamp with time zone NOT NULL,
    home_starts_at timestamp with time zone NOT NULL,
    home_ends_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE meterbook.period_clock IS 'Where an entity''s entries of now go (home), until the clock says to look again (due_at). Written by open_periods alone, read by recorders.';

COMMENT ON COLUMN meterbook.period_clock.home_since IS 'Whatever occurred from here to now is placed at home; what occurred before has to be looked up.';

CREATE FUNCTION meterbook.home_at(c meterbook.period_clock, at timestamp with time zone) RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
  -- The period of now. Somebody whose clock is ahead may have opened the next one already: for the others it has not begun.
  select case when c.home_starts_at <= at then c.home_id else (select p.period_id from meterbook.place(c.entity_id, null, at, at) p) end
$$;

CREATE FUNCTION meterbook.import_history(entity text, starts timestamp with time zone, ends timestamp with time zone, keys uuid[], fingerprints uuid[], actors text[], amounts numeric[], categories text[], sources text[], descriptions text[], workflows text[], executions text[], occurred_ats timestamp with time zone[], at timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
-- Entries of a period that ended before this ledger knew of it: readable, in no limit, charge, allowance or lateness. Gives how many were new; of a
-- window that is sealed, none.
#variable_conflict use_variable
declare
  the_entity bigint := meterbook.entity_id_of(entity);
  the_period meterbook.billing_period;
  imported   bigint;
begin
  perform meterbook.lock_fold();
  select p.* into the_period from meterbook.billing_period p
  where p.entity_id = the_entity and p.kind = 'history' and p.starts_at = starts and p.ends_at = ends for no key update;
  if not found then
    insert into meterbook.billing_period (entity_id, kind, starts_at, ends_at, plan, seats, included, refresh_per_day, opened_at)
    values (the_entity, 'history', starts, ends, 'free', 1, 0, 0, at) returning * into the_period;
  end if;
  if the_period.state <> 'open' then return 0; end if;
  with said as (
    select u.*, a.id as actor_id, meterbook.day_in(u.occurred_at, starts, ends) as day
    from unnest(keys, fingerprints, actors, amounts, categories, sources, descriptions, workflows, executions, occurred_ats)
      u(key, fingerprint, actor, amount, category, source, description, workflow, execution, occurred_at)
    join meterbook.actor a on a.external_id = u.actor),
  new_key as (
    insert into meterbook.event_key (key, fingerprint, entity_id, period_id, amount, recorded_at)
    select s.key, s.fingerprint, the_entity, the_period.id, s.amount, at from said s order by s.key on conflict do nothing returning key),
  fresh as materialized (select s.* from said s join new_key n on n.key = s.key),
  logged as (
    insert into meterbook.usage_log (entity_id, recorded_at, key, period_id, day, actor_id, occurred_at, amount, category, source, description, workflow, execution)
    select the_entity, at, f.key, the_period.id, f.day, f.actor_id, f.occurred_at, f.amount, f.category, f.source, f.description, f.workflow, f.execution from fresh f),
  delta as (
    insert into meterbook.usage_delta (entity_id, period_id, day, actor_id, source, description, amount, entries, digest, keys, recorded_at)
    select the_entity, the_period.id, f.day, f.actor_id, f.source, f.description, sum(f.amount), count(*), sum(meterbook.key_weight(f.key) * f.amount),
           array_agg(f.key), at
    from fresh f group by f.day, f.actor_id, f.source, f.description)
  select count(*) into imported from fresh;
  perform meterbook.fold_period(the_entity, the_period.id);
  return imported;
end $$;

CREATE FUNCTION meterbook.is_gone(e meterbook.billing_entity) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
  -- Deleted: what concerns its subscription at Stripe has nobody left to concern.
  select e.external_id is null or e.kind = 'organization' and not exists (select from meterbook.organization o where o.entity_id = e.id)
$$;

CREATE FUNCTION meterbook.join_organization(the_entity bigint, the_actor bigint, the_role text, moment timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
-- One organization a person: joining the same one again only changes the role, joining a second is refused.
declare present meterbook.member;
begin
  perform from meterbook.actor a where a.id = the_actor for no key update;
  select m.* into present from meterbook.member m where m.actor_id = the_actor and m.left_at is null;
  if present.organization_id = the_entity then
    update meterbook.member m set role = the_role
    where m.organization_id = the_entity and m.actor_id = the_actor and m.left_at is null and m.role <> 'owner';
    return;
  elsif present.organization_id is not null then
    raise exception using errcode = 'MB021', message = 'the user is already a member of another organization',
      hint = 'One organization a user: remove the membership there first.';
  end if;
  insert into meterbook.member (organization_id, actor_id, role, joined_at) values (the_entity, the_actor, the_role, moment);
end $$;

CREATE FUNCTION meterbook.keep_addressee(known meterbook.subscription) RETURNS void
    LANGUAGE sql
    AS $$
  -- What a subscription was used for by the owner whom it leaves is billed where it was billed until now.
  update meterbook.billing_period p set stripe_customer = known.stripe_customer, stripe_subscription = known.stripe_subscription
  where p.entity_id = known.owner_id and p.subscription_id = known.id and p.state <> 'closed' and p.stripe_customer is null
$$;

CREATE FUNCTION meterbook.key_weight(key uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
  -- The first 32 bits of a key: Σ weight × amount is a digest that adds up, is the same in every language, and misses a change of the
  -- ledger with a probability of 2⁻³².
  select ('x' || encode(substr(uuid_send(key), 1, 4), 'hex'))::bit(32)::bigint
$$;

CREATE FUNCTION meterbook.known_entity(entity text) RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- Its surrogate, for who may read no table.
  select meterbook.entity_id_of(entity)
$$;

CREATE FUNCTION meterbook.known_holds(hold_keys text[], at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(hold_key text, entity text, actor text, workspace text, amount numeric, granted_at timestamp with time zone, expires_at timestamp with time zone, state text, ended_at timestamp with time zone, settled numeric)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- Holds by their ids as they stand at this moment, for who may read no table: one that has run out is expired, whether or not somebody has noticed.
#variable_conflict use_column
declare moment timestamptz := coalesce(meterbook.permitted(known_holds.at), clock_timestamp());
begin
  return query
  select h.hold_key, e.kind || ':' || coalesce(e.external_id, '#' || e.id), coalesce(a.external_id, '#' || a.id), h.workspace, h.amount, h.granted_at,
         h.expires_at, case when h.state = 'active' and h.expires_at <= moment then 'expired' else h.state end, h.ended_at, h.settled
  from meterbook.hold h join meterbook.billing_entity e on e.id = h.entity_id join meterbook.actor a on a.id = h.actor_id
  where h.hold_key = any (known_holds.hold_keys);
end $$;

CREATE FUNCTION meterbook.late_parts(the_entity bigint, keys uuid[], at timestamp with time zone) RETURNS TABLE(key uuid, stamped bigint, booked bigint, day integer, amount numeric)
    LANGUAGE plpgsql STABLE ROWS 10
    SET enable_nestloop TO 'on'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION meterbook.leave_to_history(the_entity bigint, the_period bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$
-- A period that ended while its counters still counted: they billed it, so it becomes history (BEHAVIOUR §13).
begin
  perform meterbook.lock_period(the_entity, the_period);
  perform meterbook.fold_period(the_entity, the_period);
  update meterbook.billing_period p set kind = 'history' where p.entity_id = the_entity and p.id = the_period and p.kind = 'dated' and p.state = 'open';
  if found then
    perform meterbook.seal_history(the_entity, the_period);
  end if;
end $$;

CREATE FUNCTION meterbook.ledger_gauges(at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(deltas_waiting bigint, oldest_delta_s numeric, outbox_waiting bigint, oldest_outbox_s numeric, dead_letters bigint, closes_deferred bigint, stripe_events_waiting bigint, key_conflicts bigint, acts_without_outcome bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- What an operator watches, for whoever serves it: counts and ages, no name and no amount.
#variable_conflict use_column
declare moment timestamptz := coalesce(meterbook.permitted(ledger_gauges.at), clock_timestamp());
begin
  return query
  with waiting as (
    select o.created_at from meterbook.outbox o left join meterbook.outbox_delivery d on d.outbox_id = o.id
    where d.outbox_id is null or d.state in ('due', 'leased'))
  select (select count(*) from meterbook.usage_delta),
         (select coalesce(extract(epoch from moment - min(d.recorded_at)), 0) from meterbook.usage_delta d),
         (select count(*) from waiting),
         (select coalesce(extract(epoch from moment - min(w.created_at)), 0) from waiting w),
         (select count(*) from meterbook.outbox_delivery d where d.state = 'dead'),
         (select count(*) from meterbook.deferred_close),
         (select count(*) from meterbook.stripe_event e where e.state in ('pending', 'failed')),
         (select count(*) from meterbook.key_conflict),
         (select count(*) from meterbook.act_log l where l.at < moment - interval '1 minute'
            and not exists (select from meterbook.act_outcome o where o.act_id = l.id));
end $$;

CREATE FUNCTION meterbook.lock_and_fold_period(the_entity bigint, the_period bigint, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS json
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION meterbook.lock_and_read_gate(the_entity bigint, actors text[], workspaces text[], hold_keys text[], at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS json
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    SET plan_cache_mode TO 'force_generic_plan'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION meterbook.lock_and_read_period(the_entity bigint, the_period bigint DEFAULT NULL::bigint, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS json
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION meterbook.lock_fold() RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- Shared with other seals, exclusive of the compactor; in a statement of its own, before anything is read.
  select pg_advisory_xact_lock_shared(5067, 1)
$$;

CREATE FUNCTION meterbook.lock_gate(the_entity bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
  perform from meterbook.hold_gate g where g.entity_id = the_entity for update;
  if not found then
    insert into meterbook.hold_gate (entity_id, held) values (the_entity, 0) on conflict do nothing;
    perform from meterbook.hold_gate g where g.entity_id = the_entity for update;
  end if;
end $$;

CREATE FUNCTION meterbook.lock_hold(hold_key text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- Waits for whoever is ending this hold.
begin
  perform from meterbook.hold x where x.hold_key = lock_hold.hold_key for update;
end $$;

CREATE FUNCTION meterbook.lock_members_of(entities bigint[], joining bigint[] DEFAULT '{}'::bigint[]) RETURNS bigint[]
    LANGUAGE plpgsql
    AS $$
-- Locks entities against changes of their membership and gives the actors whose payer depends on them, with those who are joining: all of a
-- kind at once and by id, so that two who change the same people wait for each other in one order.
declare affected bigint[];
begin
  perform from meterbook.billing_entity e where e.id = any (entities) order by e.id for no key update;
  select coalesce(array_agg(id order by id), '{}') into affected from (
    select unnest(meterbook.actors_of(entities))
    union
    select m.actor_id from meterbook.member m where m.organization_id = any (entities) and m.left_at is null
    union
    select unnest(joining)) as depends(id);
  perform from meterbook.actor a where a.id = any (affected) order by a.id for no key update;
  return affected;
end $$;

CREATE FUNCTION meterbook.lock_period(the_entity bigint, the_period bigint) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- The period's row, then the entity's grants: whoever bills or closes comes by here, one at a time. Gives the state.
declare found_state text;
begin
  select p.state into found_state from meterbook.billing_period p where p.entity_id = the_entity and p.id = the_period for no key update;
  perform from meterbook.credit_grant g where g.entity_id = the_entity order by g.id for update;
  return found_state;
end $$;

CREATE FUNCTION meterbook.lock_stripe_event(the_id text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- One at a time applies an event; gives its state.
declare found_state text;
begin
  select e.state into found_state from meterbook.stripe_event e where e.id = the_id for update;
  return found_state;
end $$;

CREATE FUNCTION meterbook.lock_stripe_subscription(the_id text, event_at timestamp with time zone, named text DEFAULT NULL::text) RETURNS TABLE(seen_at timestamp with time zone, seen_rank smallint, seen_event text, owner_said text, monthly_price numeric, invoiced_starts_at timestamp with time zone, invoiced_ends_at timestamp with time zone, subscription_id text, owner text, owner_is_gone boolean, cancels boolean, is_ours boolean, is_adopted boolean, named_at_stripe text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- Events of a subscription are applied one at a time; what is known of it, read after the lock. `cancels`: our own word about its end, where Stripe
-- has not heard it yet, or had not when it said this: an echo of an older one must not undo it. `is_ours`: it cancels because an organization pays.
-- `named`: which of ours its metadata say it is; one that has no id at Stripe yet is meant (`is_adopted`), else `named_at_stripe` says which it has.
begin
  perform pg_advisory_xact_lock(5069, hashtext(named)) where named is not null;    -- of two at Stripe that name one of ours the second sees the first
  insert into meterbook.stripe_subscription (id) values (the_id) on conflict do nothing;
  perform from meterbook.stripe_subscription k where k.id = the_id for update;
  return query
  select k.seen_at, k.seen_rank, k.seen_event, k.owner_said, k.monthly_price, k.invoiced_starts_at, k.invoiced_ends_at,
         s.id, e.kind || ':' || e.external_id, s.id is not null and meterbook.is_gone(e),
         case when exists (
           select from meterbook.outbox o join meterbook.outbox_delivery d on d.outbox_id = o.id
           where o.kind = 'cancel_at_period_end' and o.payload ->> 'subscription' = s.id and coalesce(d.settled_at >= event_at or d.state = 'dead', true))
         then s.cancel_at_period_end end,
         coalesce(s.cancelled_by_us, false), coalesce(s.id = named and s.stripe_subscription is null, false),
         (select b.stripe_subscription from meterbook.subscription b where b.id = named)
  from meterbook.stripe_subscription k
  left join lateral (select b.* from meterbook.subscription b
                     where b.stripe_subscription = the_id or b.id = the_id or (b.id = named and b.stripe_subscription is null)
                     order by b.stripe_subscription = the_id desc nulls last, b.id = the_id desc, b.id limit 1) s on true
  left join meterbook.billing_entity e on e.id = s.owner_id
  where k.id = the_id;
end $$;

CREATE FUNCTION meterbook.look_again(the_entity bigint, at timestamp with time zone) RETURNS void
    LANGUAGE sql
    AS $$
  -- Something but usage changed what an entity may use, or owes: its threshold and alerts are looked at.
  insert into meterbook.moved_entity (entity_id, since) values (the_entity, look_again.at)
$$;

CREATE FUNCTION meterbook.make_api_key(prefix text, digest bytea, name text, scopes text[], by_whom text, expires_at timestamp with time zone, replaces bigint DEFAULT NULL::bigint, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  insert into meterbook.api_key (prefix, digest, name, scopes, created_at, created_by, expires_at, replaces)
  values (make_api_key.prefix, make_api_key.digest, make_api_key.name, make_api_key.scopes, coalesce(meterbook.permitted(at), clock_timestamp()), by_whom,
          make_api_key.expires_at, make_api_key.replaces) returning id
$$;

CREATE FUNCTION meterbook.months_after(anchor timestamp with time zone, months integer) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE
    AS $$
  -- Counted from the original anchor, so that 31 January → 28 February → 31 March.
  select ((anchor at time zone 'UTC') + make_interval(months => months)) at time zone 'UTC'
$$;

CREATE FUNCTION meterbook.move_credits(from_entity bigint, to_entity bigint, at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
-- The spendable credits of a subscription that passes to another owner go with it: spent here, granted there, terms kept.
declare
  g record;
  moved bigint;
  ours  bigint[] := array(select c.id from meterbook.credit_grant c where c.entity_id in (from_entity, to_entity) order by c.entity_id, c.id for update);
begin
  for g in      -- one that is made at this moment is not ours, and stays
    select * from meterbook.grants_of(from_entity) x
    where x.id = any (ours) and x.remaining > 0 and (x.expires_at is null or x.expires_at > at) order by x.id
  loop
    insert into meterbook.credit_grant (entity_id, grant_key, cents, source, priority, expires_at, granted_at)
    values (to_entity, 'moved:' || from_entity || ':' || g.id, g.remaining, g.source, g.priority, g.expires_at, g.granted_at)
    on conflict do nothing returning id into moved;
    if moved is not null then
      insert into meterbook.credit_spend (entity_id, grant_id, moved_to, cents, at) values (from_entity, g.id, moved, g.remaining, at);
      perform meterbook.look_again(to_entity, g.expires_at) where g.expires_at > at;
    end if;
  end loop;
  perform meterbook.look_again(from_entity, at) where moved is not null;    -- its limit falls, also if another subscription goes on there
end $$;

CREATE FUNCTION meterbook.note_api_key_use(the_id bigint, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- Once a minute is enough to know whether a key is still in use; whoever finds the row locked leaves it to the other.
declare moment timestamptz := coalesce(meterbook.permitted(note_api_key_use.at), clock_timestamp());
begin
  update meterbook.api_key k set last_used_at = moment
  where k.id = (select f.id from meterbook.api_key f where f.id = the_id and (f.last_used_at is null or f.last_used_at < moment - interval '1 minute')
                for update skip locked);
end $$;

CREATE FUNCTION meterbook.note_conflicts(keys uuid[], fingerprints uuid[], actors text[], categories text[], sources text[], descriptions text[], amounts numeric[], entities text[] DEFAULT NULL::text[], periods bigint[] DEFAULT NULL::bigint[], at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- Keeps both versions of every key of a call that conflicts, so that it is counted and visible; actors by their surrogates. Gives their number.
-- Versions of one call, of which nothing was written, are kept as well.
declare
  moment    timestamptz := coalesce(meterbook.permitted(note_conflicts.at), clock_timestamp());
  conflicts bigint;
begin
  with said as (
    select u.key, u.fingerprint, u.entity, u.period, u.n,
      jsonb_build_object('actor_id', a.id, 'category', coalesce(u.category, 'model'), 'source', u.source, 'description', u.description,
                         'amount', u.amount::text, 'entity_id', meterbook.entity_id_of(u.entity), 'period', u.period) as said
    from unnest(keys, fingerprints, actors, categories, sources, descriptions, amounts, entities, periods) with ordinality
      u(key, fingerprint, actor, category, source, description, amount, entity, period, n)
    left join meterbook.actor a on a.external_id = u.actor),
  noted as (
    insert into meterbook.key_conflict (key, at, first_said, then_said)
    select u.key, moment,
      jsonb_build_object('actor_id', l.actor_id, 'category', l.category, 'source', l.source, 'description', l.description,
                         'amount', l.amount::text, 'entity_id', k.entity_id, 'period', coalesce(k.belongs_to, k.period_id)),
      u.said
    from said u
    join meterbook.event_key k on k.key = u.key and not meterbook.same_intent(k, u.fingerprint, u.entity, u.period)
    left join meterbook.usage_log l on l.entity_id = k.entity_id and l.recorded_at = k.recorded_at and l.key = k.key
    union all
    select u.key, moment, u.said, v.said
    from (select s.*, row_number() over (partition by s.key order by s.n) as place from said s) u
    join said v on v.key = u.key and v.n > u.n and v.fingerprint <> u.fingerprint
    where u.place = 1 and not exists (select from meterbook.event_key k where k.key = u.key)
    returning 1)
  select count(*) into conflicts from noted;
  return conflicts;
end $$;

CREATE FUNCTION meterbook.note_fall() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- On the counters of a product, while it is migrated. Arguments: the columns of the user and of the counter. A row that is gone is a counter of 0.
declare
  before  jsonb := to_jsonb(old);
  present jsonb := case when tg_op = 'UPDATE' then to_jsonb(new) end;
begin
  insert into meterbook.cutover_fall (owner, was, is_now)
  values (before ->> tg_argv[0], coalesce((before ->> tg_argv[1])::numeric, 0), coalesce((present ->> tg_argv[1])::numeric, 0));
  return null;
end $$;

CREATE FUNCTION meterbook.note_invoiced_period(the_id text, starts_at timestamp with time zone, ends_at timestamp with time zone, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- The period that a renewal's invoice bills, under the subscription's lock: where it is later than what is known, the subscription has it, all else
-- as it was. An event that is older, and so says the period before, does not take it back.
#variable_conflict use_variable
declare s meterbook.subscription;
begin
  perform meterbook.permitted(at);
  update meterbook.stripe_subscription k set invoiced_starts_at = starts_at, invoiced_ends_at = ends_at
  where k.id = the_id and (k.invoiced_starts_at is null or k.invoiced_starts_at < starts_at);
  select b.* into s from meterbook.subscription b where b.stripe_subscription = the_id or b.id = the_id
  order by b.stripe_subscription = the_id desc nulls last, b.id limit 1;
  if s.starts_at < starts_at and s.status not in ('canceled', 'incomplete_expired') then
    perform meterbook.put_subscription(s.id, e.kind || ':' || e.external_id, s.plan, s.plan_rank, s.seats, s.included, s.refresh_per_day, s.status,
      starts_at, ends_at, s.interval_months, s.anchor, s.cancel_at_period_end, at => at,
      cancel_at => case when not s.cancel_at_period_end then s.ended_at end)
    from meterbook.billing_entity e where e.id = s.owner_id and not meterbook.is_gone(e);
  end if;
end $$;

CREATE FUNCTION meterbook.note_past_terms(the_subscription text, plan text, seats integer, included numeric, refresh_per_day numeric, is_entitled boolean, starts_at timestamp with time zone, ends_at timestamp with time zone, interval_months integer, anchor timestamp with time zone, effective_at timestamp with time zone, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- What a subscription was before something newer that is known already. It regresses nothing; its plan and seats were in force from then on until the
-- next that is known, and what ran then and was never opened is opened: up to what began after it.
#variable_conflict use_variable
declare
  moment    timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
  effective timestamptz := least(effective_at, moment);
  affected  bigint[];
  s         meterbook.subscription;
  was       meterbook.subscription;
begin
  select b.* into s from meterbook.subscription b where b.id = the_subscription;
  affected := meterbook.lock_members_of(array[s.owner_id]);
  perform meterbook.settle_due(affected, moment);
  select b.* into s from meterbook.subscription b where b.id = the_subscription for update;
  perform from meterbook.billing_period p where p.entity_id = s.owner_id and p.subscription_id = s.id and p.state = 'open'
  order by p.entity_id, p.id for no key update;
  perform meterbook.open_periods(array[s.owner_id], moment);
  insert into meterbook.subscription_segment (owner_id, subscription_id, effective_at, plan, seats, included, refresh_per_day, noted_at)
  select s.owner_id, s.id, case when exists (select from meterbook.subscription_segment g where g.subscription_id = s.id and g.effective_at = effective)
                                then effective - interval '1 microsecond' else effective end,    -- of one instant the newer is the later
         plan, seats, included, refresh_per_day, moment
  where not exists (select from meterbook.subscription_segment g where g.subscription_id = s.id and g.effective_at = effective
                    and (g.plan, g.seats) = (plan, seats));
  perform meterbook.hold_segment(s, moment);
  if is_entitled and starts_at <= moment and moment < ends_at then
    was := s;
    was.starts_at := starts_at; was.ends_at := ends_at; was.interval_months := interval_months; was.anchor := coalesce(anchor, starts_at);
    perform meterbook.open_past_window(s, was, moment);
  end if;
  update meterbook.billing_period p set (plan, seats, included, refresh_per_day) =
    (select a.plan, a.seats, a.included, a.refresh_per_day from meterbook.allowance_of(s.id, p.starts_at, p.ends_at) a)
  where p.entity_id = s.owner_id and p.subscription_id = s.id and p.state = 'open';
  perform meterbook.open_periods(array[s.owner_id], moment);
  perform meterbook.settle_payers(affected, moment);
  perform meterbook.look_again(s.owner_id, moment);
end $$;

CREATE FUNCTION meterbook.note_segment(s meterbook.subscription, known meterbook.subscription, effective timestamp with time zone, said boolean) RETURNS void
    LANGUAGE plpgsql
    AS $$
-- Plan and seats from an instant on; an owner's segments are theirs. Nothing is noted when nothing changed, unless the instant was `said`: what was
-- in force before it may be learned later, and then this is what it changed to. Where something else was
-- said of an instant after `effective`, the newest word holds from now on.
begin
  insert into meterbook.subscription_segment (owner_id, subscription_id, effective_at, plan, seats, included, refresh_per_day, noted_at)
  select s.owner_id, s.id, case when known.id is null and not said then s.begins_at else effective end,
         s.plan, s.seats, s.included, s.refresh_per_day, s.updated_at
  where (s.plan, s.seats, s.included, s.refresh_per_day) is distinct from
    (select (g.plan, g.seats, g.included, g.refresh_per_day) from meterbook.subscription_segment g
     where g.subscription_id = s.id and g.effective_at <= effective and (g.effective_at = effective or not said)
     order by g.effective_at desc, g.id desc limit 1);
  perform meterbook.hold_segment(s, s.updated_at);
end $$;

CREATE FUNCTION meterbook.note_stripe_subscription(the_id text, seen_at timestamp with time zone, seen_rank smallint, seen_event text, owner_said text, monthly_price numeric) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- The newest event applied, and what its metadata said.
  update meterbook.stripe_subscription k set
    (seen_at, seen_rank, seen_event, owner_said, monthly_price) =
    (note_stripe_subscription.seen_at, note_stripe_subscription.seen_rank, note_stripe_subscription.seen_event,
     coalesce(note_stripe_subscription.owner_said, k.owner_said), coalesce(note_stripe_subscription.monthly_price, k.monthly_price))
  where k.id = the_id
$$;

CREATE FUNCTION meterbook.open_free_period(the_entity bigint, at timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET "TimeZone" TO 'UTC'
    AS $$
-- Every entity has one: a lifetime, or the calendar month, and those that went by since the last one. Gives its end.
declare
  starts timestamptz := '1970-01-01 00:00+00';
  ends   timestamptz := '9999-12-31 00:00+00';
begin
  if (select l.free_period from meterbook.ledger l) = 'calendar' then
    ends := date_trunc('month', at) + interval '1 month';
    starts := coalesce((select max(p.ends_at) from meterbook.billing_period p where p.entity_id = the_entity and p.kind = 'free'), date_trunc('month', at));
    insert into meterbook.billing_period (entity_id, kind, starts_at, ends_at, plan, seats, included, refresh_per_day, opened_at)
    select the_entity, 'free', month, month + interval '1 month', 'free', 1, 0, 0, at
    from generate_series(starts, date_trunc('month', at), '1 month') month
    on conflict do nothing;
    return ends;
  end if;
  insert into meterbook.billing_period (entity_id, kind, starts_at, ends_at, plan, seats, included, refresh_per_day, opened_at)
  select the_entity, 'free', starts, ends, 'free', 1, 0, 0, at
  where not exists (select from meterbook.billing_period p where p.entity_id = the_entity and p.kind = 'free' and p.starts_at = starts)
  on conflict do nothing;
  return ends;
end $$;

CREATE FUNCTION meterbook.open_past_window(s meterbook.subscription, was meterbook.subscription, at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
-- The window of `at` as it was then: a later start in one that we opened cuts it; it ends where something known begins, or with the subscription.
declare
  w      record;
  finish timestamptz;
begin
  select * into w from meterbook.window_of(was, at);
  update meterbook.billing_period p set ends_at = w.starts_at, moved = true
  where p.entity_id = s.owner_id and p.subscription_id = s.id and p.state = 'open' and p.kind = 'dated' and p.starts_at < w.starts_at and w.starts_at < p.ends_at;
  finish := least(w.ends_at, s.ended_at, (select min(p.starts_at) from meterbook.billing_period p
                                          where p.entity_id = s.owner_id and p.subscription_id = s.id and p.kind = 'dated' and p.ends_at > w.starts_at));
  if finish > w.starts_at then
    update meterbook.subscription b set begins_at = least(b.begins_at, w.starts_at) where b.id = s.id;
    insert into meterbook.billing_period (entity_id, kind, starts_at, ends_at, subscription_id, plan, seats, included, refresh_per_day, opened_at, resting)
    select s.owner_id, 'dated', w.starts_at, finish, s.id, a.plan, a.seats, a.included, a.refresh_per_day, open_past_window.at,
           s.status in ('unpaid', 'paused', 'incomplete')
    from meterbook.allowance_of(s.id, w.starts_at, finish) a;
  end if;
end $$;

CREATE FUNCTION meterbook.open_periods(entities bigint[], at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
-- The clock opens periods. Idempotent; blocks no recorder, who only reads what is there. Subscriptions are locked in a statement of
-- their own, so that what is opened follows from what they last said; then the entities' clocks, where a first subscription that somebody
-- is making at this moment, and that nobody else can see, is waited for.
declare
  entity bigint;
  free_ends timestamptz;
  due timestamptz;
  s meterbook.subscription;
  old_home bigint;
begin
  perform from meterbook.subscription b where b.owner_id = any (entities) order by b.id for share;
  insert into meterbook.period_clock (entity_id, due_at, home_id, home_since, home_starts_at, home_ends_at)
  select e, '-infinity', 0, '-infinity', '-infinity', '-infinity' from unnest(entities) e order by e on conflict do nothing;
  perform from meterbook.period_clock c where c.entity_id = any (entities) order by c.entity_id for no key update;
  foreach entity in array entities loop
    old_home := (select c.home_id from meterbook.period_clock c where c.entity_id = entity);
    free_ends := meterbook.open_free_period(entity, at);
    due := free_ends;
    for s in      -- each by its own clock; a lesser one's period rests beside the best one's
      select b.* from meterbook.subscription b
      where b.owner_id = entity and b.status in ('active', 'trialing', 'past_due') and (b.ended_at is null or b.ended_at > b.begins_at) order by b.id
    loop
      if s.begins_at > at then
        due := least(due, s.begins_at);
      elsif s.ended_at <= at then
        perform meterbook.open_windows(s, at);    -- those before its end that nobody came by to open
      else
        due := least(due, meterbook.open_windows(s, at));
      end if;
    end loop;
    insert into meterbook.period_clock (entity_id, due_at, home_id, home_since, home_starts_at, home_ends_at)
    select entity, least(due, p.ends_at), p.id, greatest(p.starts_at, (      -- since no other period of a subscription could have it
             select max(d.ends_at) from meterbook.billing_period d
             where d.entity_id = entity and d.kind = 'dated' and d.id <> p.id and (p.kind = 'free' or d.ends_at <= at))), p.starts_at, p.ends_at
    from meterbook.billing_period p left join meterbook.subscription b on b.id = p.subscription_id
    where p.entity_id = entity and p.state = 'open' and not p.resting and p.starts_at <= at and at < p.ends_at and p.kind in ('dated', 'free')
    order by p.kind = 'dated' desc, meterbook.standing(b) desc, b.id limit 1
    on conflict (entity_id) do update set (due_at, home_id, home_since, home_starts_at, home_ends_at) =
      (excluded.due_at, excluded.home_id, excluded.home_since, excluded.home_starts_at, excluded.home_ends_at)
    where period_clock is distinct from excluded;
    if exists (select from meterbook.period_clock c where c.entity_id = entity and c.home_id <> old_home and old_home <> 0) then
      perform meterbook.look_again(entity, at);    -- what it may use is another sum, and what was used before the limit of now may be told
    end if;
  end loop;
end $$;

CREATE FUNCTION meterbook.open_windows(s meterbook.subscription, at timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    AS $$
-- Opens every window of a subscription up to the one that contains `at` (several, when nobody came by for months); gives its end.
-- A window begins where an earlier one of the subscription ends, if that is later than its own start.
declare
  cursor_at timestamptz;
  starts timestamptz;
  ends timestamptz;
begin
  select greatest(s.begins_at, coalesce(max(p.ends_at), s.begins_at)) into cursor_at
  from meterbook.billing_period p where p.entity_id = s.owner_id and p.kind = 'dated' and p.subscription_id = s.id;
  if not exists (select from meterbook.billing_period p where p.entity_id = s.owner_id and p.subscription_id = s.id) then
    -- first contact with a running subscription: what ended before it was reported is history
    cursor_at := greatest(cursor_at, s.starts_at, (select w.starts_at from meterbook.window_of(s, s.updated_at) w where s.updated_at > s.starts_at));
  end if;
  while cursor_at <= at loop
    exit when s.ended_at <= cursor_at;
    select w.starts_at, w.ends_at into starts, ends from meterbook.window_of(s, cursor_at) w;
    starts := greatest(starts, cursor_at);
    starts := greatest(starts, (select max(p.ends_at) from meterbook.billing_period p where p.entity_id = s.owner_id and p.kind = 'dated'
                                and p.subscription_id = s.id and p.starts_at <= starts and p.ends_at < ends));
    if starts > at then return least(starts, s.ended_at); end if;
    insert into meterbook.billing_period
      (entity_id, kind, starts_at, ends_at, subscription_id, plan, seats, included, refresh_per_day, opened_at)
    select s.owner_id, 'dated', starts, least(ends, s.ended_at), s.id, a.plan, a.seats, a.included, a.refresh_per_day, at
    from meterbook.allowance_of(s.id, starts, least(ends, s.ended_at)) a
    on conflict do nothing;
    cursor_at := ends;
  end loop;
  return least(cursor_at, s.ended_at);
end $$;

CREATE FUNCTION meterbook.organization_is_known(organization text) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  select exists (select from meterbook.organization o join meterbook.billing_entity e on e.id = o.entity_id where e.external_id = organization)
$$;

CREATE FUNCTION meterbook.owner_entity(owner text) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
-- The surrogate of who a subscription belongs to: a user is made known, an organization must be.
begin
  if split_part(owner, ':', 1) = 'organization' then
    return meterbook.existing_organization(substr(owner, 14));
  end if;
  perform meterbook.person(substr(owner, 6));
  return meterbook.entity_id_of(owner);
end $$;

CREATE FUNCTION meterbook.owners_at_stripe(the_subscription text, customer text) RETURNS bigint[]
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- Who owns this subscription; without one that is known, all whose subscriptions this customer at Stripe pays.
  with own as (
    select s.owner_id from meterbook.subscription s where s.stripe_subscription = the_subscription or s.id = the_subscription),
  paying as (
    select s.owner_id from meterbook.subscription s where s.stripe_customer = customer and the_subscription is null)
  select coalesce(array_agg(distinct o.owner_id order by o.owner_id), '{}') from (select * from own union select * from paying) o
$$;

CREATE FUNCTION meterbook.parties_of(actors text[], workspaces text[], entities text[], payer_ids bigint[], at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(n integer, actor_id bigint, entity_id bigint, home_id bigint, home_since timestamp with time zone, home_starts_at timestamp with time zone, home_ends_at timestamp with time zone, moment timestamp with time zone)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- For importers that COPY: who pays for each party, and where its entries of now go. A party that is missing has to be recorded by
-- record_usage, which says why.
#variable_conflict use_column
declare recorded_at timestamptz := coalesce(meterbook.permitted(parties_of.at), clock_timestamp());
begin
  return query
  select u.n::integer, a.id, p.id, p.home_id, p.home_since, p.home_starts_at, p.home_ends_at, recorded_at
  from unnest(actors, workspaces, entities, payer_ids) with ordinality u(actor, workspace, entity, payer_id, n)
  join meterbook.actor a on a.external_id = u.actor
  cross join lateral meterbook.payer_of_entry(u.entity, u.payer_id, u.workspace, a.payer_id, a.payer_until, recorded_at) p;
end $$;

CREATE FUNCTION meterbook.pass_clocks(entities bigint[], actors bigint[], at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- What the clock alone changes: who pays, and the periods that open.
begin
  perform meterbook.permitted(at);
  perform meterbook.settle_due(actors || meterbook.actors_of(entities), at);
  if cardinality(entities) > 0 then
    perform meterbook.open_periods(entities, at);
  end if;
end $$;

CREATE FUNCTION meterbook.payer_of(the_actor bigint, at timestamp with time zone) RETURNS TABLE(entity_id bigint, until timestamp with time zone)
    LANGUAGE sql STABLE
    AS $$
  -- Candidates are the entitled subscriptions of the user and of the existing organization that the user is a member of: the highest
  -- rank wins, then the organization's, then the larger included, the later start, the id. None: the user pays. `until` is the
  -- first instant at which the clock alone would change that, or end one that rests: what was cancelled for its sake is taken back then.
  with purse as materialized (
    select e.id, false as pooled from meterbook.actor a join meterbook.billing_entity e on e.kind = 'user' and e.external_id = a.external_id
    where a.id = the_actor
    union all
    select o.entity_id, true from meterbook.member m join meterbook.organization o on o.entity_id = m.organization_id
    where m.actor_id = the_actor and m.left_at is null),
  candidate as materialized (
    select s.*, p.pooled, s.status in ('active', 'trialing', 'past_due') as entitled
    from purse p join meterbook.subscription s on s.owner_id = p.id
    where s.status not in ('canceled', 'incomplete_expired') and (s.ended_at is null or s.ended_at > at)),
  winner as (
    select c.owner_id from candidate c where c.entitled and c.begins_at <= at
    order by c.plan_rank desc, c.pooled desc, c.included desc nulls first, c.begins_at desc, c.id limit 1)
  select coalesce((select owner_id from winner), (select id from purse where not pooled)),
         coalesce((select min(case when c.entitled and c.begins_at > at then c.begins_at else c.ended_at end) from candidate c), 'infinity')
$$;

CREATE FUNCTION meterbook.payer_of_entry(named text, attributed bigint, workspace text, actor_payer bigint, actor_payer_until timestamp with time zone, at timestamp with time zone, called text DEFAULT NULL::text) RETURNS TABLE(id bigint, name text, home_id bigint, home_since timestamp with time zone, home_starts_at timestamp with time zone, home_ends_at timestamp with time zone)
    LANGUAGE sql STABLE
    AS $$
  -- The entity that was named, or the attribution's (`called` so there), or the workspace's, or else the actor's; those given together must agree.
  -- With it, where its entries of now go. No row: not known yet, not decided, or the clock has moved on.
  select e.id, e.kind || ':' || coalesce(e.external_id, '#' || e.id), meterbook.home_at(c, at), c.home_since, c.home_starts_at, c.home_ends_at
  from (select case when named is not null then meterbook.entity_id_of(named) end as named_id,
               case when workspace is not null then (select coalesce(w.payer_id, 0) from meterbook.workspace w where w.external_id = workspace) end as place) said
  cross join lateral (select b.* from meterbook.billing_entity b where b.id = case
    when named is not null then said.named_id
    when attributed is not null then attributed
    when said.place > 0 then said.place
    when actor_payer_until > at then actor_payer end limit 1) e
  cross join lateral (select k.* from meterbook.period_clock k where k.entity_id = e.id and k.due_at > at limit 1) c
  where (workspace is null or said.place is not null)
    and (called is null or meterbook.goes_by(e, called))
    and (named is null or attributed is null or said.named_id = attributed)
    and (named is null or attributed is not null or coalesce(said.place, 0) in (0, said.named_id))
$$;

CREATE FUNCTION meterbook.pending_of(the_entity bigint, the_period bigint, at timestamp with time zone) RETURNS TABLE(day integer, actor_id bigint, source text, description text, amount numeric, entries bigint, digest numeric)
    LANGUAGE sql STABLE
    AS $$
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

CREATE FUNCTION meterbook.period_terms(the_entity bigint, the_period bigint, at timestamp with time zone, breakdowns boolean DEFAULT true) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path TO 'meterbook', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION meterbook.permitted(at timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE STRICT
    AS $$
-- A time that a caller passes. It may lie back; ahead only if the ledger's owner says so, in tests and replays: time opens and closes periods,
-- and one who is early opens them for everybody.
begin
  if not isfinite(at) then
    raise exception using errcode = 'MB050', message = format('%s is no moment', at), hint = 'Leave `at` out: the database has a clock.';
  end if;
  if at - clock_timestamp() > interval '1 second'
     and not pg_has_role(session_user, (select n.nspowner from pg_namespace n where n.nspname = 'meterbook'), 'member') then
    raise exception using errcode = 'MB060', message = format('%s lies ahead of the clock of the database', at),
      hint = 'Leave `at` out (in Python: open the ledger without `clock`). Tests and replays bring their own time as the owner of the schema.';
  end if;
  return at;
end $$;

CREATE FUNCTION meterbook.person(external_id text) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
-- The surrogates of a user: as one who acts and as one who can pay. Gives the actor's.
#variable_conflict use_column
declare found_id bigint;
begin
  insert into meterbook.billing_entity (kind, external_id) values ('user', person.external_id) on conflict do nothing;
  insert into meterbook.actor (external_id) values (person.external_id) on conflict do nothing;
  select a.id into found_id from meterbook.actor a where a.external_id = person.external_id;
  return found_id;
end $$;

CREATE FUNCTION meterbook.place(the_entity bigint, asked bigint, occurred timestamp with time zone, at timestamp with time zone) RETURNS TABLE(period_id bigint, belongs_to bigint, starts_at timestamp with time zone, ends_at timestamp with time zone)
    LANGUAGE sql STABLE
    AS $$
  -- BEHAVIOUR §3.8: the period that was asked for; else the best subscription's that contains the time; else the free one. If that is
  -- closed, the entry is late: booked at home, the open subscription period or without one the free one, and `belongs_to` names the
  -- closed one. No row: nothing is open there, or it is not the payer's.
  select case when stamped.state = 'open' then stamped.id else home.home_id end,
         case when stamped.state <> 'open' then stamped.id end,
         case when stamped.state = 'open' then stamped.starts_at else home.home_starts_at end,
         case when stamped.state = 'open' then stamped.ends_at else home.home_ends_at end
  from (select p.* from meterbook.billing_period p
        where p.entity_id = the_entity and p.kind <> 'history' and p.id = coalesce(asked,
          (select d.id from meterbook.billing_period d join meterbook.subscription b on b.id = d.subscription_id
           where d.entity_id = the_entity and d.kind = 'dated' and d.starts_at <= occurred and occurred < d.ends_at and not (d.resting and d.state = 'open')
           order by meterbook.standing(b) desc, b.id limit 1),
          (select f.id from (select c.* from meterbook.billing_period c where c.entity_id = the_entity and c.kind = 'free' and c.starts_at <= occurred
                             order by c.starts_at desc limit 1) f where occurred < f.ends_at),
          (select g.id from meterbook.billing_period g where g.entity_id = the_entity and g.kind = 'free' and g.starts_at > occurred
           order by g.starts_at limit 1)) limit 1) stamped            -- from before first contact: the first there is
  cross join lateral (select c.* from meterbook.period_clock c where c.entity_id = the_entity and c.due_at > at limit 1) home
$$;

CREATE FUNCTION meterbook.placed_entries(the_entity bigint) RETURNS TABLE(entity_id bigint, key uuid, period_id bigint, day integer, actor_id bigint, occurred_at timestamp with time zone, amount numeric, corrects uuid)
    LANGUAGE sql STABLE
    AS $$
  -- Entries where they are booked: one that became visible after its period was sealed, where the fold has booked it.
  select l.entity_id, l.key, coalesce(e.booked, l.period_id), case when e.key is null then l.day else e.day end, l.actor_id, l.occurred_at, l.amount, l.corrects
  from meterbook.usage_log l left join meterbook.late_entry e on e.entity_id = l.entity_id and e.key = l.key
  where the_entity is null or l.entity_id = the_entity
$$;

CREATE FUNCTION meterbook.postpone_delivery(the_id bigint, the_lease bigint, note text, delay interval, is_stuck boolean, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
begin
  update meterbook.outbox_delivery d set state = 'due', lease = null, note = postpone_delivery.note,
    due_at = moment + delay, round = d.round + is_stuck::integer
  where d.outbox_id = the_id and d.lease = the_lease and d.state = 'leased';
  return found;
end $$;

CREATE FUNCTION meterbook.put_organization(organization text, owner text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- Makes an organization known; its owner is its first member. Again: nothing changes (ownership has its own call).
declare
  moment   timestamptz := coalesce(meterbook.permitted(put_organization.at), clock_timestamp());
  owner_id bigint := meterbook.person(put_organization.owner);
  the_entity bigint;
begin
  insert into meterbook.billing_entity (kind, external_id) values ('organization', put_organization.organization) on conflict do nothing;
  the_entity := meterbook.entity_id_of('organization:' || put_organization.organization);
  perform meterbook.lock_members_of(array[the_entity], array[owner_id]);
  if exists (select from meterbook.organization o where o.entity_id = the_entity) then return; end if;
  insert into meterbook.organization (entity_id, owner_id, created_at) values (the_entity, owner_id, moment);
  perform meterbook.join_organization(the_entity, owner_id, 'owner', moment);
  perform meterbook.open_periods(array[the_entity], moment);
  perform meterbook.settle_payers(array[owner_id], moment);
end $$;

CREATE FUNCTION meterbook.put_subscription(id text, owner text, plan text, plan_rank integer, seats integer, included numeric, refresh_per_day numeric, status text, starts_at timestamp with time zone, ends_at timestamp with time zone, interval_months integer, anchor timestamp with time zone DEFAULT NULL::timestamp with time zone, cancel_at_period_end boolean DEFAULT false, effective_at timestamp with time zone DEFAULT NULL::timestamp with time zone, stripe_customer text DEFAULT NULL::text, stripe_subscription text DEFAULT NULL::text, at timestamp with time zone DEFAULT NULL::timestamp with time zone, cancel_at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
#variable_conflict use_variable
declare
  moment    timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
  effective timestamptz := least(coalesce(effective_at, moment), moment);
  owner_id  bigint := meterbook.owner_entity(owner);
  known     meterbook.subscription;
  s         meterbook.subscription;
  affected  bigint[];
begin
  select b.* into known from meterbook.subscription b where b.id = put_subscription.id;
  affected := meterbook.lock_members_of(array_remove(array[known.owner_id, owner_id], null));
  perform meterbook.settle_due(affected, moment);
  perform from meterbook.subscription b where b.owner_id in (known.owner_id, owner_id) or b.id = put_subscription.id order by b.id for update;
  select b.* into known from meterbook.subscription b where b.id = put_subscription.id;
  -- What the clock has to open begins with what was in force until now: as if somebody had come by at each start. Locks in their order.
  if known.owner_id is not null then
    -- of both owners, also where it comes back to one whose cut period is still to be closed: before their credits, as a closer does
    perform from meterbook.billing_period b where b.entity_id in (known.owner_id, owner_id) and b.subscription_id = known.id and b.state = 'open'
    order by b.entity_id, b.id for no key update;
    perform meterbook.open_periods(array[known.owner_id], moment);
  end if;

  s.id := id; s.owner_id := owner_id; s.plan := plan; s.plan_rank := plan_rank; s.seats := seats;
  s.included := included; s.refresh_per_day := refresh_per_day; s.status := status;
  s.starts_at := starts_at; s.ends_at := ends_at; s.interval_months := interval_months; s.cancel_at_period_end := cancel_at_period_end;
  s.stripe_customer := coalesce(stripe_customer, known.stripe_customer);
  s.stripe_subscription := coalesce(stripe_subscription, known.stripe_subscription);
  s.updated_at := moment;
  s.cancelled_by_us := coalesce(known.cancelled_by_us, false);
  s.begins_at := case when known.owner_id is null then starts_at when known.owner_id <> owner_id then effective
    when starts_at >= known.starts_at then known.begins_at    -- also when it has passed to its owner since
    else least(known.begins_at, starts_at) end;
  s.anchor := coalesce(anchor, case
    when known.interval_months = interval_months
     and meterbook.months_after(known.anchor, meterbook.step_of(known.anchor, interval_months, starts_at) * interval_months) = starts_at
    then known.anchor end, starts_at);
  if known.status in ('unpaid', 'paused', 'incomplete') and status in ('active', 'trialing', 'past_due') then    -- windows that passed meanwhile never were
    s.begins_at := greatest(s.begins_at, (select w.starts_at from meterbook.window_of(s, moment) w));
  end if;
  s.ended_at := case
    when status in ('canceled', 'incomplete_expired') then case when known.status = status then known.ended_at else effective end
    when cancel_at is not null then cancel_at when cancel_at_period_end then ends_at end;

  insert into meterbook.subscription select s.*
  on conflict on constraint subscription_pkey do update set
    (owner_id, plan, plan_rank, seats, included, refresh_per_day, status, begins_at, starts_at, ends_at, anchor, interval_months,
     cancel_at_period_end, ended_at, stripe_customer, stripe_subscription, updated_at) =
    (s.owner_id, s.plan, s.plan_rank, s.seats, s.included, s.refresh_per_day, s.status, s.begins_at, s.starts_at, s.ends_at, s.anchor,
     s.interval_months, s.cancel_at_period_end, s.ended_at, s.stripe_customer, s.stripe_subscription, s.updated_at);

  if known.cancelled_by_us and not cancel_at_period_end and s.status not in ('canceled', 'incomplete_expired') then
    update meterbook.subscription b set cancel_at_period_end = true, ended_at = meterbook.term_end(s, moment) where b.id = s.id;   -- ours is still to be delivered
    s.cancel_at_period_end := true;
    s.ended_at := meterbook.term_end(s, moment);
  end if;
  if known.owner_id is null or s.status not in ('canceled', 'incomplete_expired') then    -- an end says when, not what was in force until then
    perform meterbook.note_segment(s, known, effective, effective_at is not null);
  end if;
  if known.owner_id <> owner_id then
    perform meterbook.keep_addressee(known);
    perform meterbook.move_credits(known.owner_id, owner_id, moment);
  end if;
  perform meterbook.amend_periods(s, known.owner_id, effective, moment);
  perform meterbook.open_periods(array_remove(array[owner_id, nullif(known.owner_id, owner_id)], null), moment);
  perform meterbook.settle_payers(affected, moment);
  perform meterbook.look_again(owner_id, moment);
end $$;

CREATE FUNCTION meterbook.put_workspace(workspace text, payer text DEFAULT NULL::text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
declare
  moment   timestamptz := coalesce(meterbook.permitted(put_workspace.at), clock_timestamp());
  payer_id bigint := case when put_workspace.payer is not null then meterbook.owner_entity(put_workspace.payer) end;
begin
  perform meterbook.settle_due(meterbook.actors_of(array[payer_id]), moment);
  insert into meterbook.workspace (external_id, payer_id) values (put_workspace.workspace, payer_id)
  on conflict (external_id) do update set payer_id = excluded.payer_id;
  if payer_id is not null then
    perform meterbook.open_periods(array[payer_id], moment);
  end if;
end $$;

CREATE FUNCTION meterbook.rebuild(the_entity bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET jit TO 'off'
    AS $$
-- Derives an entity's rollups anew from its entries; the deltas that wait stay as they are. Under the fold's lock. Gives the rows made.
declare made bigint;
begin
  perform pg_advisory_xact_lock(5067, 1);
  delete from meterbook.usage_rollup r where r.entity_id = the_entity;
  with grouped as (
    select g.* from meterbook.recomputed(the_entity) g where g.entries > 0),
  ranked as (
    select g.*, row_number() over (partition by g.period_id, g.grain order by g.entries desc, g.part, g.detail) as place from grouped g)
  insert into meterbook.usage_rollup (entity_id, period_id, grain, part, detail, amount, entries, digest, descriptions)
  select the_entity, r.period_id, r.grain, r.part, case when r.grain = 'description' and r.place > 1000 then '(other)' else r.detail end,
         sum(r.amount), sum(r.entries), sum(r.digest),
         case when r.grain = 'total' then (select least(count(*), 1000) from ranked d where d.period_id = r.period_id and d.grain = 'description') else 0 end
  from ranked r group by r.period_id, r.grain, r.part, 5;
  get diagnostics made = row_count;
  return made;
end $$;

CREATE FUNCTION meterbook.recomputed(the_entity bigint DEFAULT NULL::bigint) RETURNS TABLE(entity_id bigint, period_id bigint, grain text, part text, detail text, amount numeric, entries bigint, digest numeric)
    LANGUAGE sql STABLE
    AS $$
  -- What the rollups should say: every grain of every period, from the entries, less the deltas that wait.
  with logged as (
    select l.entity_id, coalesce(e.booked, l.period_id) as period_id, case when e.key is null then l.day else e.day end as day,
           l.actor_id, l.source, l.description, l.amount, 1::bigint as entries, meterbook.key_weight(l.key) * l.amount as digest
    from meterbook.usage_log l left join meterbook.late_entry e on e.entity_id = l.entity_id and e.key = l.key
    where the_entity is null or l.entity_id = the_entity
    union all
    select d.entity_id, d.period_id, d.day, d.actor_id, d.source, d.description, -d.amount, -d.entries, -d.digest from meterbook.usage_delta d
    where the_entity is null or d.entity_id = the_entity)
  select g.entity_id, g.period_id,
         case grouping(g.day, g.actor_id, g.source) when 7 then 'total' when 3 then 'day' when 5 then 'actor' else 'description' end,
         coalesce(g.day::text, g.actor_id::text, g.source, ''), coalesce(g.description, ''), sum(g.amount), sum(g.entries)::bigint, sum(g.digest)
  from logged g
  group by grouping sets ((g.entity_id, g.period_id), (g.entity_id, g.period_id, g.day), (g.entity_id, g.period_id, g.actor_id),
                          (g.entity_id, g.period_id, g.source, g.description))
$$;

CREATE FUNCTION meterbook.record_cumulative(request text, actor text, total numeric, source text, description text, category text DEFAULT NULL::text, occurred_at timestamp with time zone DEFAULT NULL::timestamp with time zone, workspace text DEFAULT NULL::text, workflow text DEFAULT NULL::text, execution text DEFAULT NULL::text, source_reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, entity text DEFAULT NULL::text, payer_id bigint DEFAULT NULL::bigint, payer_name text DEFAULT NULL::text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS SETOF meterbook.recorded
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET lock_timeout TO '5s'
    SET jit TO 'off'
    AS $$
-- Keeps the maximum of a running total: appends the rise, or answers `unchanged`. One row a request is locked, so that the order of arrival
-- doesn't matter. Bound to the first flush: naming another actor, workspace, entity, category, source or description is a `conflict`; a payer
-- that merely changed since is not.
#variable_conflict use_variable
declare
  moment  timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
  id      uuid := encode(substr(sha256(convert_to('meterbook.request.1,' || meterbook.digest_field(request), 'UTF8')), 1, 16), 'hex')::uuid;
  rise_key uuid;
  kind    text := category;
  acting  meterbook.actor;
  bound   meterbook.cumulative_request;
  payer   bigint;
  rise    numeric := total;
  result  meterbook.recorded;
begin
  if coalesce(request, '') = '' or total is null then
    raise exception using errcode = 'MB050', message = 'a running total needs the request that reports it, and an amount',
      hint = 'Pass request and total: the amount so far of everything that this request has used.';
  end if;
  if total < 0 or total <> round(total, 12) then
    raise exception using errcode = 'MB050', message = format('%s is no running total: it is negative, or has more than 12 decimal places', total),
      hint = 'Pass the amount so far; to take usage back is a correction.';
  end if;
  rise_key := encode(substr(sha256(convert_to('meterbook.cumulative.1,' || meterbook.digest_field(request)
    || meterbook.digest_field(trim_scale(total)::text), 'UTF8')), 1, 16), 'hex')::uuid;
  select a.* into acting from meterbook.actor a where a.external_id = actor;
  begin
    select r.* into bound from meterbook.cumulative_request r where r.request = id for update;
    if not found and total > 0 then
      select p.id into payer from meterbook.payer_of_entry(entity, payer_id, workspace, acting.payer_id, acting.payer_until, moment, payer_name) p;
      if payer is null or acting.id is null then
        return next row(1, rise_key, replace(meterbook.refusal(actor, occurred_at, workspace, entity, null, payer_id, payer_name, moment), 'not_written', 'unattributed'), null, null, null, total, null)::meterbook.recorded;
        return;
      end if;
      insert into meterbook.cumulative_request (request, actor_id, entity_id, workspace, category, source, description, total, name)
      values (id, acting.id, payer, workspace, coalesce(kind, 'model'), source, description, total, request) on conflict do nothing;
      if not found then
        select r.* into bound from meterbook.cumulative_request r where r.request = id for update;
      end if;
    end if;
    if bound.request is not null then
      kind := coalesce(kind, bound.category);
      if (bound.actor_id, bound.category, bound.source, bound.description) is distinct from (acting.id, kind, source, description)
         or workspace is not null and workspace is distinct from bound.workspace
         or entity is not null and meterbook.entity_id_of(entity) is distinct from bound.entity_id then
        insert into meterbook.key_conflict (key, at, first_said, then_said)
        values (id, moment, to_jsonb(bound) - 'request',
          jsonb_build_object('actor_id', acting.id, 'entity_id', meterbook.entity_id_of(entity), 'workspace', workspace, 'category', kind,
                             'source', source, 'description', description, 'total', total::text));
        return next row(1, rise_key, 'conflict', (select e.kind || ':' || coalesce(e.external_id, '#' || e.id) from meterbook.billing_entity e where e.id = bound.entity_id),
                        null, null, bound.total, null)::meterbook.recorded;
        return;
      end if;
      payer := bound.entity_id;
      workspace := bound.workspace;
      rise := total - bound.total;
      if rise > 0 then
        update meterbook.cumulative_request r set total = record_cumulative.total where r.request = id;
      end if;
    end if;
    if rise <= 0 then
      return next row(1, rise_key, 'unchanged', null, null, null, 0, null)::meterbook.recorded;
      return;
    end if;
    kind := coalesce(kind, 'model');
    select r.* into result from meterbook.record_usage(
      keys => array[rise_key],
      fingerprints => array[meterbook.fingerprint(actor, kind, source, description, rise, (select l.currency from meterbook.ledger l))],
      actors => array[actor], sources => array[source], descriptions => array[description], amounts => array[rise], categories => array[kind],
      occurred_ats => array[occurred_at], workspaces => array[workspace], workflows => array[workflow], executions => array[execution],
      source_references => array[source_reference], metadatas => array[metadata], payer_ids => array[payer], at => moment) r;
    if result.outcome <> 'inserted' then
      raise exception using errcode = 'MB001';
    end if;
    insert into meterbook.cumulative_rise (entity_id, key, recorded_at, request) values (payer, rise_key, result.recorded_at, id);
  exception
    when sqlstate 'MB001' then null;
    when lock_not_available then
      result := row(1, rise_key, 'in_progress', null, null, null, total, null)::meterbook.recorded;
  end;
  return next result;
end $$;

CREATE FUNCTION meterbook.record_usage(keys uuid[], fingerprints uuid[], actors text[], sources text[], descriptions text[], amounts numeric[], categories text[] DEFAULT NULL::text[], occurred_ats timestamp with time zone[] DEFAULT NULL::timestamp with time zone[], workspaces text[] DEFAULT NULL::text[], workflows text[] DEFAULT NULL::text[], executions text[] DEFAULT NULL::text[], source_references text[] DEFAULT NULL::text[], lines text[] DEFAULT NULL::text[], metadatas jsonb[] DEFAULT NULL::jsonb[], entities text[] DEFAULT NULL::text[], periods bigint[] DEFAULT NULL::bigint[], payer_ids bigint[] DEFAULT NULL::bigint[], payer_periods bigint[] DEFAULT NULL::bigint[], payers text[] DEFAULT NULL::text[], at timestamp with time zone DEFAULT NULL::timestamp with time zone, note_conflicts boolean DEFAULT true, key_wait_ms integer DEFAULT 5000) RETURNS SETOF meterbook.recorded
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET lock_timeout TO '5s'
    SET jit TO 'off'
    AS $$
-- All or nothing, in the caller's transaction, which stays usable after a refusal: refusals come back as rows.
-- `entities` and `periods` are what the caller names (a retry that names another conflicts); `payer_ids`, `payer_periods` and `payers`, the names
-- of the ids, come from an attribution: checked, never compared with what a retry says.
--
-- Isolation: at READ COMMITTED the statement that looks a key up has a younger snapshot than the one that waited for its writer, which is
-- what tells a replay from a conflict. At stricter levels such a key raises 40001, which the caller retries.
declare
  size    constant integer := cardinality(keys);
  moment  timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
  written meterbook.recorded[];
  clashes integer[] := '{}';
  answers meterbook.recorded[];
begin
  if greatest(array_ndims(keys), array_ndims(fingerprints), array_ndims(actors), array_ndims(sources), array_ndims(descriptions), array_ndims(amounts),
              array_ndims(categories), array_ndims(occurred_ats), array_ndims(workspaces), array_ndims(workflows), array_ndims(executions),
              array_ndims(source_references), array_ndims(lines), array_ndims(metadatas), array_ndims(entities), array_ndims(periods),
              array_ndims(payer_ids), array_ndims(payer_periods), array_ndims(payers)) > 1 or cardinality(fingerprints) <> size or cardinality(actors) <> size or cardinality(sources) <> size or cardinality(descriptions) <> size
     or cardinality(amounts) <> size or cardinality(categories) <> size or cardinality(occurred_ats) <> size or cardinality(workspaces) <> size
     or cardinality(workflows) <> size or cardinality(executions) <> size or cardinality(source_references) <> size or cardinality(lines) <> size
     or cardinality(metadatas) <> size or cardinality(entities) <> size or cardinality(periods) <> size or cardinality(payer_ids) <> size
     or cardinality(payer_periods) <> size or cardinality(payers) <> size then
    raise exception using errcode = 'MB050', message = 'the arrays of record_usage differ in length or have more than one dimension',
      hint = 'Pass one element an entry in each array, or leave the array out.';
  end if;
  if size = 0 then return; end if;
  if key_wait_ms <> 5000 then
    perform set_config('lock_timeout', greatest(key_wait_ms, 1) || 'ms', true);    -- until the function ends; 0 would be for ever
  end if;
  begin
    if size = 1 then
      written := meterbook.write_one(keys[1], fingerprints[1], actors[1], sources[1], descriptions[1], amounts[1], coalesce(categories[1], 'model'),
        occurred_ats[1], workspaces[1], workflows[1], executions[1], source_references[1], lines[1], metadatas[1], entities[1], periods[1],
        payer_ids[1], payer_periods[1], payers[1], moment);
    else
      if num_nonnulls(occurred_ats, workspaces, entities, periods, payer_ids, payer_periods, payers) = 0 then
        written := meterbook.write_at_home(keys, fingerprints, actors, sources, descriptions, amounts, categories, workflows, executions,
          source_references, lines, metadatas, moment);
      end if;
      if written is null then
        written := meterbook.write_many(keys, fingerprints, actors, sources, descriptions, amounts, categories, occurred_ats, workspaces, workflows,
          executions, source_references, lines, metadatas, entities, periods, payer_ids, payer_periods, payers, moment);
      end if;
    end if;
    if cardinality(written) = size then
      if size = 1 then
        return next written[1];
      else
        return query select * from unnest(written);
      end if;
      return;
    elsif written <> '{}' and exists (select from meterbook.unanswered(keys, fingerprints, entities, periods)) then
      clashes := meterbook.clashes_within(written, keys, fingerprints, entities, periods);
      raise exception using errcode = 'MB001';                                                  -- undoes this call, nothing else
    end if;
  exception
    when sqlstate 'MB001' then
      written := '{}';
    when lock_not_available then
      return query select u.n::integer, u.key, 'in_progress', null::text, null::bigint, null::bigint, u.amount, null::timestamptz
        from unnest(keys, amounts) with ordinality u(key, amount, n);
      return;
  end;
  return query select * from unnest(written);
  select array_agg(a order by a.n) into answers
  from meterbook.answer(keys, fingerprints, actors, amounts, occurred_ats, workspaces, entities, periods, payer_ids, payer_periods, payers, moment) a
  where not exists (select from unnest(written) w where w.n = a.n);
  return query
    select a.n, a.key,
      case when a.n = any (clashes) then 'conflict'
           when a.outcome <> 'not_written' or clashes <> '{}'
             or exists (select from unnest(answers) b where b.outcome not in ('replayed', 'not_written')) then a.outcome
           else 'unattributed' end,      -- nothing is wrong any more: it was attributed between the two looks
      a.entity, a.period, a.belongs_to, a.amount, a.recorded_at
    from unnest(answers) a;
  if note_conflicts and exists (select from unnest(answers) a where a.outcome = 'conflict' or a.n = any (clashes))
     and not exists (select from unnest(answers) a where a.outcome = 'unattributed') then      -- that call comes again
    perform meterbook.note_conflicts(keys, fingerprints, actors, categories, sources, descriptions, amounts, entities, periods, moment);
  end if;
end $$;

CREATE FUNCTION meterbook.recorded_days(the_entity bigint, the_period bigint, is_closed boolean, at timestamp with time zone) RETURNS json
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION meterbook.redrive_delivery(the_id bigint, at timestamp with time zone DEFAULT NULL::timestamp with time zone, invoice_is_gone boolean DEFAULT false) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- due | not_dead | unknown. It goes on at the step where it stopped, and may try for as long again. `invoice_is_gone`: somebody deleted the draft at Stripe,
-- so that its id leads nowhere: the invoice is looked for by its metadata, and made under a new key if there is none.
declare moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
begin
  update meterbook.outbox_delivery d set state = 'due', due_at = moment, attempts = 0, first_try_at = null, settled_at = null,
    invoice = case when not invoice_is_gone then d.invoice end, item = case when not invoice_is_gone then d.item end,
    step = case when invoice_is_gone then 'create' else d.step end, step_since = case when not invoice_is_gone then d.step_since end,
    round = d.round + invoice_is_gone::integer
  where d.outbox_id = the_id and d.state = 'dead';
  return case when found then 'due' when exists (select from meterbook.outbox_delivery d where d.outbox_id = the_id) then 'not_dead' else 'unknown' end;
end $$;

CREATE FUNCTION meterbook.refusal(actor text, occurred_at timestamp with time zone, workspace text, entity text, asked_period bigint, attributed bigint, called text, at timestamp with time zone) RETURNS text
    LANGUAGE plpgsql STABLE
    AS $_$
-- What is wrong with one entry that has no key yet; `not_written` if nothing is.
#variable_conflict use_variable
declare
  acting    meterbook.actor;
  place_of  meterbook.workspace;
  named_id  bigint := meterbook.entity_id_of(entity);
  payer     bigint;
begin
  select a.* into acting from meterbook.actor a where a.external_id = actor;
  select w.* into place_of from meterbook.workspace w where w.external_id = workspace;
  if coalesce(actor, '') = '' or actor ~ '^#[0-9]+$' then return 'invalid_actor'; end if;
  if occurred_at > at + interval '5 minutes' then return 'occurred_in_the_future'; end if;
  if workspace is not null and place_of.external_id is null then return 'unknown_workspace'; end if;
  if named_id is null and (entity not like 'user:_%' or entity ~ '^user:#[0-9]+$') then return 'unknown_entity'; end if;      -- a user is made known by naming one
  if named_id <> attributed or (attributed is null and named_id <> place_of.payer_id) then return 'attribution_disagrees'; end if;
  if called is not null and not exists (select from meterbook.billing_entity e where e.id = attributed and meterbook.goes_by(e, called)) then
    return 'attribution_disagrees';
  end if;
  payer := coalesce(named_id, attributed, place_of.payer_id, case when acting.payer_until > at then acting.payer_id end);
  if acting.id is null or payer is null or (entity is not null and named_id is null)
     or not exists (select from meterbook.period_clock c where c.entity_id = payer and c.due_at > at) then
    return 'unattributed';
  end if;
  if asked_period is not null and not exists (select from meterbook.place(payer, asked_period, at, at)) then return 'period_of_another_payer'; end if;
  if not exists (select from meterbook.place(payer, asked_period, least(coalesce(occurred_at, at), at), at)) then return 'unattributed'; end if;
  return 'not_written';
end $_$;

CREATE FUNCTION meterbook.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
  raise exception using errcode = 'MB010',
    message = format('%s is append-only: %s refused', tg_table_name, lower(tg_op)),
    hint = 'Record a correction (meterbook.correct_entry) that points at the entry.';
end $$;

CREATE FUNCTION meterbook.remove_member(organization text, person text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- What was recorded stays where it is; from now on the person's own subscription, or the person, pays.
declare
  moment     timestamptz := coalesce(meterbook.permitted(remove_member.at), clock_timestamp());
  the_entity bigint := meterbook.existing_organization(remove_member.organization);
  the_actor  bigint := meterbook.person(remove_member.person);
begin
  perform meterbook.lock_members_of(array[the_entity], array[the_actor]);
  if exists (select from meterbook.organization o where o.entity_id = the_entity and o.owner_id = the_actor) then
    raise exception using errcode = 'MB022', message = 'the owner of an organization can''t be removed',
      hint = 'Transfer the ownership first.';
  end if;
  update meterbook.member m set left_at = greatest(moment, m.joined_at)
  where m.organization_id = the_entity and m.actor_id = the_actor and m.left_at is null;
  if not found then
    raise exception using errcode = 'MB023', message = 'the user is not a member of this organization';
  end if;
  delete from meterbook.member_cap c where c.organization_id = the_entity and c.actor_id = the_actor;    -- a member's, not a stranger's
  perform meterbook.settle_payers(array[the_actor], moment);
end $$;

CREATE FUNCTION meterbook.resolve(actor text, workspace text DEFAULT NULL::text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(outcome text, entity text, entity_id bigint, period_id bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- Who pays now for an actor's work, and in which period: resolved | unattributed (call attribute, then again) | unknown_workspace.
#variable_conflict use_column
declare moment timestamptz := coalesce(meterbook.permitted(resolve.at), clock_timestamp());
begin
  return query
  select case when p.id is not null then 'resolved'
              when resolve.workspace is not null and not exists (select from meterbook.workspace w where w.external_id = resolve.workspace)
              then 'unknown_workspace' else 'unattributed' end, p.name, p.id, p.home_id
  from (select) as always
  left join meterbook.actor a on a.external_id = resolve.actor
  left join lateral meterbook.payer_of_entry(null, null, resolve.workspace, a.payer_id, a.payer_until, moment) p on a.id is not null;
end $$;

CREATE FUNCTION meterbook.rollup_differences(the_entity bigint) RETURNS SETOF meterbook.difference
    LANGUAGE sql STABLE
    AS $$
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

CREATE FUNCTION meterbook.said_again(the_entity bigint) RETURNS TABLE(entity_id bigint, recorded_at timestamp with time zone, key uuid, period_id bigint, belongs_to bigint, amount numeric, fingerprint uuid, of_nobody boolean, erased boolean)
    LANGUAGE sql STABLE
    AS $$
  -- Entries as their keys should say them. No fingerprint: who acted was erased, and what was said of them can't be said again.
  select l.entity_id, l.recorded_at, l.key, l.period_id, l.belongs_to, l.amount,
         case when l.corrects is null then meterbook.fingerprint(a.external_id, l.category, l.source, l.description, l.amount, g.currency)
              else meterbook.correction_fingerprint(l.corrects, l.amount, g.currency) end,
         a.id is null, a.id is not null and a.external_id is null and l.corrects is null
  from meterbook.usage_log l cross join meterbook.ledger g left join meterbook.actor a on a.id = l.actor_id
  where the_entity is null or l.entity_id = the_entity
$$;

CREATE TABLE meterbook.event_key (
    key uuid NOT NULL,
    fingerprint uuid NOT NULL,
    entity_id bigint NOT NULL,
    period_id bigint NOT NULL,
    belongs_to bigint,
    amount numeric NOT NULL,
    recorded_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE meterbook.event_key IS 'Every key that ever took effect, with all that a replay must answer. Global and permanent.';

CREATE FUNCTION meterbook.same_intent(k meterbook.event_key, fingerprint uuid, entity text, period bigint) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
  -- A retry says what the first writer said; an entity or period that it names must be the first one's too (of a late entry: the closed period).
  select k.fingerprint = fingerprint
     and (entity is null or coalesce(k.entity_id = meterbook.entity_id_of(entity), false))
     and (period is null or period = coalesce(k.belongs_to, k.period_id))
$$;

CREATE FUNCTION meterbook.seal_history(the_entity bigint, the_period bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$
-- Closed and readable, in no charge (BEHAVIOUR §13, I7 stands aside). Under lock_fold and lock_period.
declare baseline numeric := coalesce((select b.amount from meterbook.period_baseline b where b.entity_id = the_entity and b.period_id = the_period), 0);
begin
  insert into meterbook.sealed_period (entity_id, period_id, closed_at, baseline, amount, entries, digest, refresh, effective, overage,
    charged_cents, credits_cents, written_off_cents, given_back_cents)
  select the_entity, the_period, p.ends_at, baseline, coalesce(r.amount, 0), coalesce(r.entries, 0), coalesce(r.digest, 0), 0, baseline + coalesce(r.amount, 0), 0,
         coalesce(c.charged, 0), coalesce(c.credits, 0), coalesce(c.written_off, 0), 0
  from meterbook.billing_period p
  left join meterbook.usage_rollup r on r.entity_id = the_entity and r.period_id = the_period and r.grain = 'total' and r.part = '' and r.detail = ''
  left join (select sum(x.charged_cents)::bigint as charged, sum(x.credits_cents)::bigint as credits, sum(x.written_off_cents)::bigint as written_off
             from meterbook.charge x where x.entity_id = the_entity and x.period_id = the_period) c on true
  where p.entity_id = the_entity and p.id = the_period;
  insert into meterbook.sealed_actor (entity_id, period_id, actor_id, amount, entries)
  select the_entity, the_period, r.part::bigint, r.amount, r.entries from meterbook.usage_rollup r
  where r.entity_id = the_entity and r.period_id = the_period and r.grain = 'actor';
  update meterbook.billing_period p set state = 'closed' where p.entity_id = the_entity and p.id = the_period;
end $$;

CREATE FUNCTION meterbook.seal_period(the_entity bigint, the_period bigint, baseline numeric, refresh numeric, effective numeric, overage numeric, given_back bigint, at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
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

CREATE FUNCTION meterbook.seats_paid(the_subscription text, starts_at timestamp with time zone) RETURNS integer
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- The most seats of its present plan that were in force in the period that began at `starts_at`: they are paid until its end, so that whoever gives
  -- some up and takes them back is not asked twice.
  with segment as (
    select g.plan, g.seats, lead(g.effective_at) over (order by g.effective_at, g.id) as until
    from meterbook.subscription_segment g where g.subscription_id = the_subscription)
  select coalesce(max(g.seats), 0) from segment g join meterbook.subscription s on s.id = the_subscription and s.plan = g.plan
  where g.until is null or g.until > seats_paid.starts_at
$$;

CREATE FUNCTION meterbook.set_baseline(the_entity bigint, the_period bigint, amount numeric, days integer[], amounts numeric[], at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- Usage of a running period that a legacy counter held; of a closed one it never changes.
begin
  perform meterbook.permitted(set_baseline.at);
  if exists (select from meterbook.billing_period p where p.entity_id = the_entity and p.id = the_period and p.state <> 'open') then
    raise exception using errcode = 'MB040', message = 'the baseline of a closed period never changes';
  end if;
  delete from meterbook.period_baseline_day d where d.entity_id = the_entity and d.period_id = the_period;
  insert into meterbook.period_baseline (entity_id, period_id, amount) values (the_entity, the_period, set_baseline.amount)
  on conflict (entity_id, period_id) do update set amount = excluded.amount;
  insert into meterbook.period_baseline_day (entity_id, period_id, day, amount)
  select the_entity, the_period, u.day, u.amount from unnest(days, amounts) u(day, amount);
  perform meterbook.look_again(the_entity, set_baseline.at);
end $$;

CREATE FUNCTION meterbook.set_block(the_entity bigint, reason text, reference text, blocked boolean, at timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- True if something changed. A reference names what blocks; the block ends with it.
begin
  perform meterbook.permitted(set_block.at);
  if blocked then
    insert into meterbook.entity_block (entity_id, reason, reference, blocked_at) values (the_entity, set_block.reason, set_block.reference, set_block.at)
    on conflict do nothing;
  else
    delete from meterbook.entity_block b where b.entity_id = the_entity and b.reason = set_block.reason and b.reference = set_block.reference;
  end if;
  return found;
end $$;

CREATE FUNCTION meterbook.set_limit(the_entity bigint, stored numeric, by text, at timestamp with time zone) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  insert into meterbook.entity_limit (entity_id, stored, set_at, set_by) values (the_entity, set_limit.stored, meterbook.permitted(set_limit.at), set_limit.by)
  on conflict (entity_id) do update set stored = excluded.stored, set_at = excluded.set_at, set_by = excluded.set_by;
  select meterbook.look_again(the_entity, set_limit.at)
$$;

CREATE FUNCTION meterbook.set_member_cap(organization text, person text, cap numeric) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- Null: no cap. 0: nothing.
declare
  the_entity bigint := meterbook.existing_organization(set_member_cap.organization);
  the_actor  bigint := (select a.id from meterbook.actor a where a.external_id = set_member_cap.person);
begin
  if not exists (select from meterbook.member m where m.organization_id = the_entity and m.actor_id = the_actor and m.left_at is null) then
    raise exception using errcode = 'MB023', message = 'the user is not a member of this organization';
  end if;
  delete from meterbook.member_cap c where c.organization_id = the_entity and c.actor_id = the_actor and set_member_cap.cap is null;
  insert into meterbook.member_cap (organization_id, actor_id, cap) select the_entity, the_actor, set_member_cap.cap where set_member_cap.cap is not null
  on conflict (organization_id, actor_id) do update set cap = excluded.cap;
end $$;

CREATE FUNCTION meterbook.set_seats(the_subscription text, the_seats integer, contracts text[], at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- told: Stripe is, through the outbox (I3) | unknown | ended | not_at_stripe | by_contract: of one of these plans, its seats stand in its metadata.
declare
  moment  timestamptz := coalesce(meterbook.permitted(set_seats.at), clock_timestamp());
  s       meterbook.subscription;
  refusal text;
begin
  select b.* into s from meterbook.subscription b where b.id = the_subscription for no key update;
  refusal := case
    when s.id is null then 'unknown'
    when s.status in ('canceled', 'incomplete_expired') then 'ended'
    when s.stripe_subscription is null then 'not_at_stripe'
    when s.plan = any (contracts) then 'by_contract' end;
  if refusal is not null then return refusal; end if;
  update meterbook.subscription b set seats_wanted = the_seats where b.id = s.id;
  insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
  values (s.owner_id, 'seats', 'seats:' || s.id || ':' || gen_random_uuid(), jsonb_build_object('subscription', s.id, 'seats', the_seats), moment);
  return 'told';
end $$;

CREATE FUNCTION meterbook.settle_at_stripe(reference text, outcome text, settled_at timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- An invoice that is paid, voided or forgiven, a dispute that is over: what it blocks is free, whoever owns it now. Gives how many. `settled_at` is
-- Stripe's word, noted and compared with nothing.
#variable_conflict use_variable
declare freed integer;
begin
  perform pg_advisory_xact_lock(5068, hashtext(reference));
  insert into meterbook.stripe_settled (reference, outcome, settled_at) values (reference, outcome, settled_at) on conflict do nothing;
  delete from meterbook.entity_block b where b.reference = settle_at_stripe.reference and b.reason in ('payment_failed', 'dispute');
  get diagnostics freed = row_count;
  return freed;
end $$;

CREATE FUNCTION meterbook.settle_due(actors bigint[], at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
-- What the clock has changed comes before what is said now, and before periods are opened: what an organization's end takes back keeps the own
-- periods going, which else would have ended.
declare due bigint[] := array(select a.id from meterbook.actor a where a.id = any (actors) and (a.payer_id is null or a.payer_until <= at) order by a.id);
begin
  if due <> '{}' then
    perform meterbook.settle_payers(due, at);
  end if;
end $$;

CREATE FUNCTION meterbook.settle_payers(actors bigint[], at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
-- Who pays, and what follows for the own subscriptions: who gets another payer has them set to cancel, who has none to thank for it any more has
-- them back; what follows may move the instant at which the clock decides again. A subscription that somebody takes out while an organization
-- pays is their own doing, and stays.
declare
  known   bigint[];
  before  bigint[];
  flipped bigint[];
begin
  perform from meterbook.actor a where a.id = any (actors) order by a.id for no key update;
  select array_agg(a.id order by a.id), array_agg(coalesce(a.payer_id, 0) order by a.id) into known, before
  from meterbook.actor a where a.id = any (actors);
  perform meterbook.decide_payers(actors, at);
  if meterbook.take_back_cancellations(known, at) then
    perform meterbook.decide_payers(known, at);
  end if;
  select array_agg(a.id order by a.id) into flipped
  from unnest(known, before) was(id, payer_id) join meterbook.actor a on a.id = was.id where a.payer_id <> was.payer_id;
  if flipped is not null then
    perform meterbook.begin_cancellations(flipped, at);
    perform meterbook.decide_payers(flipped, at);
  end if;
end $$;

CREATE FUNCTION meterbook.settled() RETURNS TABLE(currency text, free_period text, is_demo boolean)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- What was decided for good when the ledger was made.
  select l.currency, l.free_period, l.is_demo from meterbook.ledger l
$$;

CREATE FUNCTION meterbook.standing(s meterbook.subscription) RETURNS numeric[]
    LANGUAGE sql IMMUTABLE
    AS $$
  -- Of an owner's subscriptions the one with the greatest standing pays, then the one with the least id: plan, included (none: no bound), start.
  select array[s.plan_rank, coalesce(s.included, 1e12), extract(epoch from s.begins_at)]
$$;

CREATE FUNCTION meterbook.step_of(anchor timestamp with time zone, months integer, at timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE
    AS $$
-- The n for which anchor + n·months <= at < anchor + (n + 1)·months.
declare n integer;
begin
  n := floor(((extract(year from at at time zone 'UTC') - extract(year from anchor at time zone 'UTC')) * 12
            + extract(month from at at time zone 'UTC') - extract(month from anchor at time zone 'UTC')) / months);
  while meterbook.months_after(anchor, n * months) > at loop n := n - 1; end loop;
  while meterbook.months_after(anchor, (n + 1) * months) <= at loop n := n + 1; end loop;
  return n;
end $$;

CREATE FUNCTION meterbook.store_stripe_event(the_id text, the_type text, subject text, created_at timestamp with time zone, body text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- Kept as it came, once. Gives the state it has.
#variable_conflict use_variable
declare moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
begin
  insert into meterbook.stripe_event (id, type, subject, created_at, received_at, body)
  values (the_id, the_type, subject, created_at, moment, body) on conflict do nothing;
  return (select e.state from meterbook.stripe_event e where e.id = the_id);
end $$;

CREATE FUNCTION meterbook.stripe_event_body(the_id text) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  select e.body from meterbook.stripe_event e where e.id = the_id
$$;

CREATE FUNCTION meterbook.stripe_events(the_state text, rows_max integer) RETURNS TABLE(id text, type text, subject text, created_at timestamp with time zone, received_at timestamp with time zone, state text, attempts integer, note text, settled_at timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- Newest first.
  select e.id, e.type, e.subject, e.created_at, e.received_at, e.state, e.attempts, e.note, e.settled_at
  from meterbook.stripe_event e where the_state is null or e.state = the_state order by e.received_at desc, e.created_at desc, e.id desc limit rows_max
$$;

CREATE FUNCTION meterbook.sum_departed(the_entity bigint, the_period bigint, at timestamp with time zone) RETURNS numeric
    LANGUAGE sql STABLE
    AS $$
  -- What the ledger has of a period by those whose running counter is not this entity's.
  select coalesce((select sum(r.amount) from meterbook.usage_rollup r
                   where r.entity_id = the_entity and r.period_id = the_period and r.grain = 'actor' and not exists (
                     select from meterbook.actor a join meterbook.cutover_counter k on k.name = 'user:' || a.external_id
                     where a.id = r.part::bigint and k.entity_id = the_entity and k.period_id = the_period)), 0)
       + coalesce((select sum(d.amount) from meterbook.pending_of(the_entity, the_period, sum_departed.at) d
                   where not exists (
                     select from meterbook.actor a join meterbook.cutover_counter k on k.name = 'user:' || a.external_id
                     where a.id = d.actor_id and k.entity_id = the_entity and k.period_id = the_period)), 0)
$$;

CREATE FUNCTION meterbook.sum_held(the_entity bigint, the_period bigint, person text, at timestamp with time zone) RETURNS numeric
    LANGUAGE sql STABLE
    AS $$
  -- What the ledger has of one actor in a period.
  select coalesce((select sum(r.amount) from meterbook.usage_rollup r
                   where r.entity_id = the_entity and r.period_id = the_period and r.grain = 'actor' and r.part = a.id::text and r.detail = ''), 0)
       + coalesce((select sum(d.amount) from meterbook.pending_of(the_entity, the_period, sum_held.at) d where d.actor_id = a.id), 0)
  from meterbook.actor a where a.external_id = person
$$;

CREATE FUNCTION meterbook.sum_period(the_entity bigint, the_period bigint, at timestamp with time zone) RETURNS numeric
    LANGUAGE sql STABLE
    AS $$
  -- Baseline and ledger of a period.
  select coalesce((select b.amount from meterbook.period_baseline b where b.entity_id = the_entity and b.period_id = the_period), 0)
       + coalesce((select sum(r.amount) from meterbook.usage_rollup r
                   where r.entity_id = the_entity and r.period_id = the_period and r.grain = 'total' and r.part = '' and r.detail = ''), 0)
       + coalesce((select sum(d.amount) from meterbook.pending_of(the_entity, the_period, sum_period.at) d), 0)
$$;

CREATE FUNCTION meterbook.take_back_cancellations(actors bigint[], at timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION meterbook.tell_cancellation(owner_id bigint, subscription_id text, cancels boolean, at timestamp with time zone) RETURNS void
    LANGUAGE sql
    AS $$
  -- Stripe is told through the outbox (I3).
  insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
  values (owner_id, 'cancel_at_period_end', 'cancel:' || subscription_id || ':' || gen_random_uuid(),
          jsonb_build_object('subscription', subscription_id, 'cancel_at_period_end', cancels), at)
$$;

CREATE FUNCTION meterbook.tell_cancellation_again(the_subscription text, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
-- Ours was decided before the subscription had an id at Stripe: there was nobody to tell.
declare moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
begin
  perform meterbook.tell_cancellation(s.owner_id, s.id, true, moment) from meterbook.subscription s where s.id = the_subscription and s.cancelled_by_us;
end $$;

CREATE FUNCTION meterbook.tell_proration(the_entity bigint, invoice text, cents bigint, at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- Stripe gave money back for a decrease in the middle of a period, which is to wait for its end (BEHAVIOUR §7): an operator is told, once.
  insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
  values (the_entity, 'alert', 'proration:' || the_entity || ':' || invoice,
          jsonb_build_object('alert', 'decrease_prorated', 'invoice', invoice, 'cents', cents), coalesce(meterbook.permitted(at), clock_timestamp())) on conflict do nothing
$$;

CREATE FUNCTION meterbook.term_end(s meterbook.subscription, at timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE
    AS $$
  -- The end of the interval that is paid for at `at`: as reported, and from then on by the anchor.
  select case when at < s.ends_at then s.ends_at
              else meterbook.months_after(s.anchor, (meterbook.step_of(s.anchor, s.interval_months, at) + 1) * s.interval_months) end
$$;

CREATE FUNCTION meterbook.transfer_ownership(organization text, person text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
-- Changes who is asked, not one amount. The new owner must be a member; the old one stays, as an admin.
declare
  the_entity bigint := meterbook.existing_organization(transfer_ownership.organization);
  the_actor  bigint := meterbook.person(transfer_ownership.person);
begin
  perform from meterbook.billing_entity e where e.id = the_entity for no key update;
  perform from meterbook.organization o where o.entity_id = the_entity for no key update;
  perform from meterbook.member m where m.organization_id = the_entity and m.left_at is null order by m.id for no key update;
  perform meterbook.lock_members_of(array[the_entity]);
  if not exists (select from meterbook.member m where m.organization_id = the_entity and m.actor_id = the_actor and m.left_at is null) then
    raise exception using errcode = 'MB023', message = 'the user is not a member of this organization', hint = 'Add the member first.';
  end if;
  update meterbook.member m set role = case when m.actor_id = the_actor then 'owner' else 'admin' end
  where m.organization_id = the_entity and m.left_at is null and (m.role = 'owner' or m.actor_id = the_actor);
  update meterbook.organization o set owner_id = the_actor where o.entity_id = the_entity;
end $$;

CREATE FUNCTION meterbook.unanswered(keys uuid[], fingerprints uuid[], entities text[], periods bigint[]) RETURNS TABLE(key uuid)
    LANGUAGE sql STABLE
    AS $$
  -- Keys of a call that are neither written nor replayed.
  select u.key from unnest(keys, fingerprints, entities, periods) u(key, fingerprint, entity, period)
  where not exists (select from meterbook.event_key k where k.key = u.key and meterbook.same_intent(k, u.fingerprint, u.entity, u.period))
$$;

CREATE FUNCTION meterbook.unfence_period(the_entity bigint, the_period bigint, reason text, at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
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

CREATE FUNCTION meterbook.unprovable(the_entity bigint DEFAULT NULL::bigint) RETURNS bigint
    LANGUAGE sql STABLE
    SET jit TO 'off'
    AS $$
  -- Entries whose fingerprint nobody can recompute any more: the person was erased.
  select count(*) from meterbook.usage_log l join meterbook.actor a on a.id = l.actor_id
  where (the_entity is null or l.entity_id = the_entity) and a.external_id is null and l.corrects is null
$$;

CREATE FUNCTION meterbook.unsettled_stripe_events() RETURNS text[]
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  -- In Stripe's order.
  select coalesce(array_agg(e.id order by e.created_at, e.id), '{}') from meterbook.stripe_event e where e.state in ('pending', 'failed')
$$;

CREATE FUNCTION meterbook.usage_terms(the_entity bigint, the_period bigint, at timestamp with time zone, grains text[] DEFAULT NULL::text[]) RETURNS TABLE(grain text, part text, detail text, amount numeric, entries bigint, digest numeric)
    LANGUAGE sql STABLE
    AS $$
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

CREATE FUNCTION meterbook.user_is_known(person text) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    AS $$
  select exists (select from meterbook.actor a where a.external_id = person)
$$;

CREATE FUNCTION meterbook.window_of(s meterbook.subscription, at timestamp with time zone) RETURNS TABLE(starts_at timestamp with time zone, ends_at timestamp with time zone)
    LANGUAGE plpgsql IMMUTABLE
    AS $$
-- The usage window of a subscription that contains `at`: what was reported, month by month inside longer intervals, and from its end
-- on the intervals that follow from the anchor.
declare
  term_starts timestamptz := s.starts_at;
  term_ends   timestamptz := s.ends_at;
  n integer;
begin
  if at >= s.ends_at or at < s.starts_at then
    n := meterbook.step_of(s.anchor, s.interval_months, at);
    term_starts := meterbook.months_after(s.anchor, n * s.interval_months);
    term_ends := meterbook.months_after(s.anchor, (n + 1) * s.interval_months);
    if at < s.starts_at then
      term_ends := least(term_ends, s.starts_at);
    else
      term_starts := greatest(term_starts, s.ends_at);
    end if;
  end if;
  if s.interval_months = 1 then
    return query select term_starts, term_ends;
  else
    n := meterbook.step_of(s.anchor, 1, greatest(at, term_starts));
    return query select greatest(term_starts, meterbook.months_after(s.anchor, n)), least(term_ends, meterbook.months_after(s.anchor, n + 1));
  end if;
end $$;

CREATE FUNCTION meterbook.without_home(deltas tid[], at timestamp with time zone) RETURNS SETOF bigint
    LANGUAGE sql STABLE
    AS $$
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

CREATE FUNCTION meterbook.write_at_home(keys uuid[], fingerprints uuid[], actors text[], sources text[], descriptions text[], amounts numeric[], categories text[], workflows text[], executions text[], source_references text[], lines text[], metadatas jsonb[], moment timestamp with time zone) RETURNS meterbook.recorded[]
    LANGUAGE plpgsql
    SET enable_nestloop TO 'off'
    AS $$
-- A batch that names no payer, no period and no time, as most do, in one statement: each entry is its actor's, and goes to the payer's running
-- period today. Null, and nothing written: that is not known of all of them, and write_many has to look closer.
#variable_conflict use_column
declare written meterbook.recorded[];
begin
  with party as materialized (            -- once an actor; read, never locked (I8)
    select said.actor, payer.* from (select distinct a.actor from unnest(actors) a(actor)) said
    left join lateral (
      select acting.id as actor_id, e.id as entity_id, e.kind || ':' || coalesce(e.external_id, '#' || e.id) as entity_name, c.home_id as period_id,
             meterbook.day_in(moment, c.home_starts_at, c.home_ends_at) as day
      from (select a.* from meterbook.actor a where a.external_id = said.actor limit 1) acting
      cross join lateral (select b.* from meterbook.billing_entity b where b.id = acting.payer_id and acting.payer_until > moment limit 1) e
      cross join lateral (select k.* from meterbook.period_clock k where k.entity_id = e.id and k.due_at > moment limit 1) c
      where meterbook.goes_home(null, moment, c.home_since)) payer on true),
  entry as materialized (                 -- sorted by key: no deadlock between overlapping calls; distinct: a key twice in a call is one row
    select distinct on (u.key) u.*, p.actor_id, p.entity_id, p.entity_name, p.period_id, p.day
    from unnest(keys, fingerprints, actors, sources, descriptions, amounts, categories, workflows, executions, source_references, lines, metadatas)
      with ordinality u(key, fingerprint, actor, source, description, amount, category, workflow, execution, source_reference, line, metadata, n)
    join party p using (actor) where not exists (select from party unknown where unknown.entity_id is null)
    order by u.key, u.n),
  new_key as (
    insert into meterbook.event_key (key, fingerprint, entity_id, period_id, amount, recorded_at)
    select key, fingerprint, entity_id, period_id, amount, moment from entry order by key on conflict do nothing returning key),
  fresh as materialized (select e.* from entry e join new_key using (key)),
  logged as (
    insert into meterbook.usage_log (entity_id, recorded_at, key, period_id, day, actor_id, occurred_at, amount, category, source, description,
      workflow, execution, source_reference, line)
    select entity_id, moment, key, period_id, day, actor_id, moment, amount, coalesce(category, 'model'), source, description,
      workflow, execution, source_reference, line from fresh),
  noted as (
    insert into meterbook.entry_metadata (entity_id, key, recorded_at, metadata)
    select entity_id, key, moment, metadata from fresh where metadata is not null),
  delta as (
    insert into meterbook.usage_delta (entity_id, period_id, day, actor_id, source, description, amount, entries, digest, keys, recorded_at)
    select entity_id, period_id, day, actor_id, source, description, sum(amount), count(*), sum(meterbook.key_weight(key) * amount),
           array_agg(key), moment
    from fresh group by entity_id, period_id, day, actor_id, source, description)
  select case when not exists (select from party unknown where unknown.entity_id is null) then
           coalesce(array_agg(row(n, key, 'inserted', entity_name, period_id, null::bigint, amount, moment)::meterbook.recorded), '{}') end
  into written from fresh;
  return written;
end $$;

CREATE FUNCTION meterbook.write_charge(the_entity bigint, the_period bigint, the_kind text, charged bigint, credits bigint, written_off bigint, overage numeric, grant_ids bigint[], grant_cents bigint[], at timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
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

CREATE FUNCTION meterbook.write_holds(the_entity bigint, hold_keys text[], actor_ids bigint[], workspaces text[], amounts numeric[], ttls integer[], at timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'meterbook', 'pg_temp'
    SET lock_timeout TO '200ms'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION meterbook.write_many(keys uuid[], fingerprints uuid[], actors text[], sources text[], descriptions text[], amounts numeric[], categories text[], occurred_ats timestamp with time zone[], workspaces text[], workflows text[], executions text[], source_references text[], lines text[], metadatas jsonb[], entities text[], periods bigint[], payer_ids bigint[], payer_periods bigint[], payers text[], moment timestamp with time zone) RETURNS meterbook.recorded[]
    LANGUAGE plpgsql
    SET enable_nestloop TO 'off'
    AS $$
-- A batch in one statement. The planner can't know how many entries an array holds: without nested loops it hashes what is joined by key,
-- and each `cross join lateral (… limit 1)` stays the index probe that it is.
#variable_conflict use_column
declare written meterbook.recorded[];
begin
  with entry as materialized (            -- sorted by key: no deadlock between overlapping calls; distinct: a key twice in a call is one row
    select distinct on (u.key) u.*, least(coalesce(u.occurred_at, moment), moment) as happened,
           coalesce(u.workspace, '') as in_workspace, coalesce(u.entity, '') as named, coalesce(u.payer_id, 0) as attributed, coalesce(u.payer, '') as called
    from unnest(keys, fingerprints, actors, sources, descriptions, amounts, categories, occurred_ats, workspaces, workflows, executions,
                source_references, lines, metadatas, entities, periods, payer_ids, payer_periods, payers)
      with ordinality u(key, fingerprint, actor, source, description, amount, category, occurred_at, workspace, workflow, execution,
                        source_reference, line, metadata, entity, period, payer_id, payer_period, payer, n)
    order by u.key, u.n),
  party as materialized (                 -- who pays, once for all the entries that say the same; read, never locked (I8)
    select said.*, acting.id as actor_id, payer.id as entity_id, payer.name as entity_name,
           payer.home_id, payer.home_since, payer.home_starts_at, payer.home_ends_at
    from (select distinct actor, in_workspace, named, attributed, called from entry) said
    cross join lateral (select a.* from meterbook.actor a where a.external_id = said.actor limit 1) acting
    cross join lateral (select p.* from meterbook.payer_of_entry(nullif(said.named, ''), nullif(said.attributed, 0), nullif(said.in_workspace, ''),
                                                                 acting.payer_id, acting.payer_until, moment, nullif(said.called, '')) p limit 1) payer),
  sound as materialized (
    select e.*, p.actor_id, p.entity_id, p.entity_name, home.period_id, home.belongs_to, meterbook.day_in(e.happened, home.starts_at, home.ends_at) as day
    from entry e join party p using (actor, in_workspace, named, attributed, called)
    cross join lateral (
      select p.home_id as period_id, null::bigint as belongs_to, p.home_starts_at as starts_at, p.home_ends_at as ends_at
      where meterbook.goes_home(coalesce(e.period, e.payer_period), e.happened, p.home_since)
      union all
      select q.* from meterbook.place(p.entity_id, coalesce(e.period, e.payer_period), e.happened, moment) q
      where not meterbook.goes_home(coalesce(e.period, e.payer_period), e.happened, p.home_since)) home
    where coalesce(e.occurred_at <= moment + interval '5 minutes', true)),
  new_key as (
    insert into meterbook.event_key (key, fingerprint, entity_id, period_id, belongs_to, amount, recorded_at)
    select key, fingerprint, entity_id, period_id, belongs_to, amount, moment from sound order by key
    on conflict do nothing returning key),
  fresh as materialized (select s.* from sound s join new_key using (key)),
  logged as (
    insert into meterbook.usage_log (entity_id, recorded_at, key, period_id, belongs_to, day, actor_id, occurred_at, amount, category,
      source, description, workspace, workflow, execution, source_reference, line)
    select entity_id, moment, key, period_id, belongs_to, day, actor_id, happened, amount, coalesce(category, 'model'),
      source, description, workspace, workflow, execution, source_reference, line from fresh),
  noted as (
    insert into meterbook.entry_metadata (entity_id, key, recorded_at, metadata)
    select entity_id, key, moment, metadata from fresh where metadata is not null),
  delta as (
    insert into meterbook.usage_delta (entity_id, period_id, day, actor_id, source, description, amount, entries, digest, keys, recorded_at)
    select entity_id, period_id, day, actor_id, source, description, sum(amount), count(*), sum(meterbook.key_weight(key) * amount),
           array_agg(key), moment
    from fresh group by entity_id, period_id, day, actor_id, source, description)
  select coalesce(array_agg(row(n, key, 'inserted', entity_name, period_id, belongs_to, amount, moment)::meterbook.recorded), '{}') into written
  from fresh;
  return written;
end $$;

CREATE FUNCTION meterbook.write_one(key uuid, fingerprint uuid, actor text, source text, description text, amount numeric, category text, occurred_at timestamp with time zone, workspace text, workflow text, execution text, source_reference text, line text, metadata jsonb, entity text, period bigint, payer_id bigint, payer_period bigint, payer_name text, moment timestamp with time zone) RETURNS meterbook.recorded[]
    LANGUAGE plpgsql
    AS $$
-- One entry as plain statements: a third of the latency of the batch's plan (docs/operating/performance.md).
#variable_conflict use_variable
declare
  payer      record;
  home_id    bigint;
  belongs_to bigint;
  starts_at  timestamptz;
  ends_at    timestamptz;
  happened   timestamptz := least(coalesce(occurred_at, moment), moment);
  day        integer;
begin
  if occurred_at > moment + interval '5 minutes' then return '{}'; end if;
  if num_nonnulls(entity, payer_id, workspace) = 0 then     -- most calls: what payer_of_entry says, without what it has to look for
    select a.id as actor_id, e.id, e.kind || ':' || coalesce(e.external_id, '#' || e.id) as name, c.home_id, c.home_since, c.home_starts_at, c.home_ends_at
    into payer from meterbook.actor a
    join meterbook.billing_entity e on e.id = a.payer_id join meterbook.period_clock c on c.entity_id = a.payer_id
    where a.external_id = actor and a.payer_until > moment and c.due_at > moment;
  else
    select a.id as actor_id, p.* into payer from meterbook.actor a
    cross join lateral meterbook.payer_of_entry(entity, payer_id, workspace, a.payer_id, a.payer_until, moment, payer_name) p where a.external_id = actor;
  end if;
  if not found then return '{}'; end if;
  if meterbook.goes_home(coalesce(period, payer_period), happened, payer.home_since) then
    home_id := payer.home_id;
    starts_at := payer.home_starts_at;
    ends_at := payer.home_ends_at;
  else
    select p.period_id, p.belongs_to, p.starts_at, p.ends_at into home_id, belongs_to, starts_at, ends_at
    from meterbook.place(payer.id, coalesce(period, payer_period), happened, moment) p;
    if not found then return '{}'; end if;
  end if;
  insert into meterbook.event_key (key, fingerprint, entity_id, period_id, belongs_to, amount, recorded_at)
  values (key, fingerprint, payer.id, home_id, belongs_to, amount, moment) on conflict do nothing;
  if not found then return '{}'; end if;
  day := meterbook.day_in(happened, starts_at, ends_at);
  insert into meterbook.usage_log (entity_id, recorded_at, key, period_id, belongs_to, day, actor_id, occurred_at, amount, category, source,
    description, workspace, workflow, execution, source_reference, line)
  values (payer.id, moment, key, home_id, belongs_to, day, payer.actor_id, happened, amount, category, source,
    description, workspace, workflow, execution, source_reference, line);
  insert into meterbook.usage_delta (entity_id, period_id, day, actor_id, source, description, amount, entries, digest, keys, recorded_at)
  values (payer.id, home_id, day, payer.actor_id, source, description, amount, 1, meterbook.key_weight(key) * amount, array[key], moment);
  if metadata is not null then
    insert into meterbook.entry_metadata (entity_id, key, recorded_at, metadata) values (payer.id, key, moment, metadata);
  end if;
  return array[row(1, key, 'inserted', payer.name, home_id, belongs_to, amount, moment)::meterbook.recorded];
end $$;

CREATE TABLE meterbook.act_detail (
    act_id bigint NOT NULL,
    subject text NOT NULL,
    said jsonb NOT NULL
);

COMMENT ON TABLE meterbook.act_detail IS 'What an act was about, and what was said. Apart, because a person who is deleted is erased from it.';

CREATE TABLE meterbook.act_log (
    id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    by_whom text NOT NULL,
    act text NOT NULL,
    request text NOT NULL
);

COMMENT ON TABLE meterbook.act_log IS 'Administrative acts, written before they are carried out: one without an outcome was cut off, and may or may not have taken effect.';

ALTER TABLE meterbook.act_log ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.act_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE meterbook.act_outcome (
    act_id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    outcome text NOT NULL,
    code text,
    CONSTRAINT act_outcome_is_known CHECK ((outcome = ANY (ARRAY['done'::text, 'refused'::text, 'failed'::text])))
);

COMMENT ON TABLE meterbook.act_outcome IS 'What came of an act: done; refused, with the code of the error; failed, when it could not be told or done then.';

CREATE TABLE meterbook.actor (
    id bigint NOT NULL,
    external_id text,
    payer_id bigint,
    payer_until timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    CONSTRAINT actor_external_id_is_no_surrogate CHECK ((external_id !~ '^#[0-9]+$'::text)),
    CONSTRAINT actor_external_id_is_not_empty CHECK ((external_id <> ''::text))
);

COMMENT ON TABLE meterbook.actor IS 'The user whose action cost money, and who pays for it: read, never locked, by recorders.';

COMMENT ON COLUMN meterbook.actor.payer_until IS 'The instant at which the clock alone may change the payer; from then on it is decided again.';

ALTER TABLE meterbook.actor ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.actor_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE meterbook.alert_mark (
    entity_id bigint NOT NULL,
    period_id bigint NOT NULL,
    mark smallint NOT NULL,
    claimed_at timestamp with time zone NOT NULL,
    CONSTRAINT alert_mark_is_known CHECK ((mark = ANY (ARRAY[80, 100])))
);

COMMENT ON TABLE meterbook.alert_mark IS 'Marks of the limit that were crossed and told; below 70 % both are armed again.';

ALTER TABLE meterbook.api_key ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.api_key_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE meterbook.billing_entity ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.billing_entity_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE meterbook.billing_period (
    entity_id bigint NOT NULL,
    id bigint NOT NULL,
    kind text NOT NULL,
    starts_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone NOT NULL,
    subscription_id text,
    plan text NOT NULL,
    seats integer NOT NULL,
    included numeric,
    refresh_per_day numeric NOT NULL,
    state text DEFAULT 'open'::text NOT NULL,
    resting boolean DEFAULT false NOT NULL,
    cut boolean DEFAULT false NOT NULL,
    moved boolean DEFAULT false NOT NULL,
    opened_at timestamp with time zone NOT NULL,
    stripe_customer text,
    stripe_subscription text,
    CONSTRAINT billing_period_dated_has_subscription CHECK (((kind <> 'dated'::text) OR (subscription_id IS NOT NULL))),
    CONSTRAINT billing_period_included_is_money CHECK (((included >= (0)::numeric) AND (included < '1000000000000'::numeric))),
    CONSTRAINT billing_period_kind_is_known CHECK ((kind = ANY (ARRAY['dated'::text, 'free'::text, 'history'::text]))),
    CONSTRAINT billing_period_refresh_is_money CHECK (((refresh_per_day >= (0)::numeric) AND (refresh_per_day < '1000000000000'::numeric))),
    CONSTRAINT billing_period_starts_before_it_ends CHECK ((starts_at < ends_at)),
    CONSTRAINT billing_period_state_is_known CHECK ((state = ANY (ARRAY['open'::text, 'sealing'::text, 'closed'::text])))
);

COMMENT ON COLUMN meterbook.billing_period.included IS 'The largest that plan and seats gave at any moment of the period; null: no overage.';

COMMENT ON COLUMN meterbook.billing_period.state IS 'open takes entries (closing is open after its end); sealing and closed send them on to the open period.';

COMMENT ON COLUMN meterbook.billing_period.resting IS 'Its subscription is not entitled now (unpaid, paused): entries go elsewhere until it is again.';

COMMENT ON COLUMN meterbook.billing_period.cut IS 'It was cut short (BEHAVIOUR §10), so its end is final: no later word of its subscription moves it on.';

COMMENT ON COLUMN meterbook.billing_period.moved IS 'Its start or end was moved after it was opened: the days of what was recorded before follow the bounds of then.';

COMMENT ON COLUMN meterbook.billing_period.stripe_customer IS 'Where its charges go when its subscription has passed to another owner since; null: where the subscription says.';

ALTER TABLE meterbook.billing_period ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.billing_period_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE meterbook.charge (
    entity_id bigint NOT NULL,
    id bigint NOT NULL,
    period_id bigint NOT NULL,
    kind text NOT NULL,
    charged_cents bigint NOT NULL,
    credits_cents bigint NOT NULL,
    written_off_cents bigint DEFAULT 0 NOT NULL,
    overage numeric NOT NULL,
    at timestamp with time zone NOT NULL,
    CONSTRAINT charge_charged_not_negative CHECK ((charged_cents >= 0)),
    CONSTRAINT charge_credits_not_negative CHECK ((credits_cents >= 0)),
    CONSTRAINT charge_kind_is_known CHECK ((kind = ANY (ARRAY['threshold'::text, 'final'::text, 'carried'::text]))),
    CONSTRAINT charge_of_something CHECK ((((charged_cents + credits_cents) + written_off_cents) > 0)),
    CONSTRAINT charge_written_off_not_negative CHECK ((written_off_cents >= 0))
);

ALTER TABLE meterbook.charge ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.charge_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE meterbook.correction (
    entity_id bigint NOT NULL,
    key uuid NOT NULL,
    corrects uuid NOT NULL,
    of_period bigint NOT NULL,
    of_day integer,
    booked bigint NOT NULL,
    amount numeric NOT NULL
);

COMMENT ON TABLE meterbook.correction IS 'Corrections once more, by the period and day of the entry that they correct: what a bill is recomputed with.';

CREATE TABLE meterbook.credit_grant (
    entity_id bigint NOT NULL,
    id bigint NOT NULL,
    grant_key text NOT NULL,
    cents bigint NOT NULL,
    source text NOT NULL,
    priority integer NOT NULL,
    expires_at timestamp with time zone,
    granted_at timestamp with time zone NOT NULL,
    period_id bigint,
    CONSTRAINT credit_grant_positive CHECK ((cents > 0))
);

COMMENT ON COLUMN meterbook.credit_grant.period_id IS 'The closed period that a correction gave back.';

ALTER TABLE meterbook.credit_grant ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.credit_grant_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE meterbook.credit_spend (
    entity_id bigint NOT NULL,
    grant_id bigint NOT NULL,
    id bigint NOT NULL,
    charge_id bigint,
    moved_to bigint,
    cents bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    CONSTRAINT credit_spend_for_something CHECK (((charge_id IS NULL) <> (moved_to IS NULL))),
    CONSTRAINT credit_spend_positive CHECK ((cents > 0))
);

COMMENT ON TABLE meterbook.credit_spend IS 'Which grant paid which charge. Never taken back.';

ALTER TABLE meterbook.credit_spend ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.credit_spend_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE meterbook.cumulative_request (
    request uuid NOT NULL,
    actor_id bigint NOT NULL,
    entity_id bigint NOT NULL,
    workspace text,
    category text NOT NULL,
    source text NOT NULL,
    description text NOT NULL,
    total numeric NOT NULL,
    name text NOT NULL,
    CONSTRAINT cumulative_request_total_is_positive CHECK (((total > (0)::numeric) AND (total < '1000000000000'::numeric)))
);

COMMENT ON TABLE meterbook.cumulative_request IS 'The largest running total that a request reported, bound to its first flush.';

CREATE TABLE meterbook.cumulative_rise (
    entity_id bigint NOT NULL,
    key uuid NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    request uuid NOT NULL
);

COMMENT ON TABLE meterbook.cumulative_rise IS 'Which entries a request''s running total made: what proves it.';

CREATE TABLE meterbook.cutover (
    id smallint DEFAULT 1 NOT NULL,
    mapping text NOT NULL,
    feed text NOT NULL,
    is_whole boolean DEFAULT false NOT NULL,
    began_at timestamp with time zone NOT NULL,
    CONSTRAINT cutover_feed_is_known CHECK ((feed = ANY (ARRAY['audit'::text, 'application'::text]))),
    CONSTRAINT cutover_is_one_row CHECK ((id = 1))
);

COMMENT ON COLUMN meterbook.cutover.mapping IS 'Digest of the mapping that all steps use.';

COMMENT ON COLUMN meterbook.cutover.feed IS 'Who records usage while counters still count: the cutover, from the audit log, or the application, under the keys legacy:<audit id>.';

COMMENT ON COLUMN meterbook.cutover.is_whole IS 'Whether the last round of shadow came to its end: until it does, nobody knows whose counters are missing.';

CREATE TABLE meterbook.cutover_counter (
    name text NOT NULL,
    kind text NOT NULL,
    owner text NOT NULL,
    entity_id bigint NOT NULL,
    period_id bigint NOT NULL,
    epoch integer DEFAULT 1 NOT NULL,
    base numeric NOT NULL,
    held numeric NOT NULL,
    seen numeric NOT NULL,
    seen_last numeric NOT NULL,
    moved numeric DEFAULT 0 NOT NULL,
    absorbed numeric DEFAULT 0 NOT NULL,
    absorptions integer DEFAULT 0 NOT NULL,
    fall_id bigint DEFAULT 0 NOT NULL,
    is_over boolean DEFAULT false NOT NULL,
    moved_at timestamp with time zone,
    looked_at timestamp with time zone NOT NULL,
    note text DEFAULT ''::text NOT NULL,
    CONSTRAINT cutover_counter_kind_is_known CHECK ((kind = ANY (ARRAY['running'::text, 'kept'::text, 'departed'::text])))
);

COMMENT ON TABLE meterbook.cutover_counter IS 'One counter of theirs: running and kept ones are a user''s, departed ones an organization''s. Until the switch: seen = base + held + Σ its rows. From then on: moved = Σ its rows + absorbed.';

COMMENT ON COLUMN meterbook.cutover_counter.base IS 'Its part of the baseline.';

COMMENT ON COLUMN meterbook.cutover_counter.held IS 'What the ledger had of it before this epoch began.';

COMMENT ON COLUMN meterbook.cutover_counter.moved IS 'By how much it has risen since the switch.';

COMMENT ON COLUMN meterbook.cutover_counter.is_over IS 'Of an entity that was rolled back: it has to begin again, whatever has become of its entity meanwhile.';

CREATE TABLE meterbook.cutover_entity (
    entity_id bigint NOT NULL,
    state text NOT NULL,
    period_id bigint NOT NULL,
    began_at timestamp with time zone NOT NULL,
    difference numeric DEFAULT 0 NOT NULL,
    agreed_since timestamp with time zone,
    switched_at timestamp with time zone,
    billed numeric,
    credits numeric,
    note text DEFAULT ''::text NOT NULL,
    CONSTRAINT cutover_entity_state_is_known CHECK ((state = ANY (ARRAY['shadow'::text, 'switched'::text, 'retired'::text, 'rolled_back'::text])))
);

COMMENT ON COLUMN meterbook.cutover_entity.difference IS 'Counters less what the ledger makes of them, when it was last looked at.';

COMMENT ON COLUMN meterbook.cutover_entity.billed IS 'What the product had billed of its running period when that was last read; null: not since the switch.';

CREATE TABLE meterbook.cutover_fall (
    id bigint NOT NULL,
    owner text NOT NULL,
    was numeric NOT NULL,
    is_now numeric NOT NULL
);

COMMENT ON TABLE meterbook.cutover_fall IS 'Each time that a counter fell, where the trigger stands: from what to what. Between two of them it only rises, so what it rose by is known to the last digit, however often it is looked at. The ids of one owner follow its row''s locks.';

ALTER TABLE meterbook.cutover_fall ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.cutover_fall_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE meterbook.cutover_mirror (
    kind text NOT NULL,
    id text NOT NULL,
    digest text NOT NULL
);

COMMENT ON TABLE meterbook.cutover_mirror IS 'Their subscriptions, organizations and members as they were when they were last told to this ledger.';

CREATE TABLE meterbook.cutover_refusal (
    subject text NOT NULL,
    reason text NOT NULL,
    noted_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE meterbook.cutover_refusal IS 'What could not be taken over, and why; it is tried again at every round.';

CREATE TABLE meterbook.cutover_return (
    entity_id bigint NOT NULL,
    user_id text NOT NULL,
    amount numeric NOT NULL
);

COMMENT ON TABLE meterbook.cutover_return IS 'What rollbacks have given back to whose counter, since the entity was last compared: doing it again gives back the rest.';

CREATE TABLE meterbook.cutover_row (
    audit_id text NOT NULL,
    counter text NOT NULL,
    epoch integer NOT NULL,
    amount numeric NOT NULL,
    day integer,
    is_held boolean DEFAULT false NOT NULL,
    is_switched boolean DEFAULT false NOT NULL,
    refused text
);

COMMENT ON TABLE meterbook.cutover_row IS 'Rows of the audit log that the ledger has under their own keys; amount 0: in the baseline, held, or refused. is_held: the ledger had it before its epoch began. is_switched: recorded by a writer of both after the switch.';

CREATE TABLE meterbook.deferred_close (
    entity_id bigint NOT NULL,
    period_id bigint NOT NULL,
    reason text NOT NULL,
    since timestamp with time zone NOT NULL
);

COMMENT ON TABLE meterbook.deferred_close IS 'Periods whose charge can''t be addressed, or determined: never forgiven, they wait for ids, an owner, or an event of Stripe''s that failed.';

CREATE TABLE meterbook.entity_block (
    entity_id bigint NOT NULL,
    reason text NOT NULL,
    reference text DEFAULT ''::text NOT NULL,
    blocked_at timestamp with time zone NOT NULL,
    CONSTRAINT entity_block_reason_is_known CHECK ((reason = ANY (ARRAY['payment_failed'::text, 'dispute'::text, 'administrative'::text])))
);

COMMENT ON COLUMN meterbook.entity_block.reference IS 'The invoice or dispute that blocks; the block ends with it, not with another one''s success.';

CREATE TABLE meterbook.entity_limit (
    entity_id bigint NOT NULL,
    stored numeric NOT NULL,
    set_at timestamp with time zone NOT NULL,
    set_by text,
    CONSTRAINT entity_limit_is_money CHECK (((stored >= (0)::numeric) AND (stored < '1000000000000'::numeric) AND (stored = round(stored, 2))))
);

COMMENT ON TABLE meterbook.entity_limit IS 'What an edit stored, in whole cents; only an edit writes it.';

CREATE TABLE meterbook.entry_correction (
    entity_id bigint NOT NULL,
    key uuid NOT NULL,
    original numeric NOT NULL,
    corrected numeric NOT NULL,
    CONSTRAINT entry_correction_leaves_nothing_below_zero CHECK (((original + corrected) >= (0)::numeric))
);

COMMENT ON TABLE meterbook.entry_correction IS 'How much of an entry was corrected so far; the constraint is the guard of the race.';

CREATE TABLE meterbook.entry_metadata (
    entity_id bigint NOT NULL,
    key uuid NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    metadata meterbook.usage_metadata NOT NULL
);

COMMENT ON TABLE meterbook.entry_metadata IS 'What callers said besides the money. May be pruned; no figure depends on it.';

CREATE TABLE meterbook.hold_end (
    entity_id bigint NOT NULL,
    amount numeric NOT NULL,
    hold_key text NOT NULL
);

COMMENT ON TABLE meterbook.hold_end IS 'Holds that ended since the gate was last counted; appended by whoever ends them, consumed by the next hold.';

CREATE TABLE meterbook.hold_gate (
    entity_id bigint NOT NULL,
    held numeric NOT NULL
);

COMMENT ON TABLE meterbook.hold_gate IS 'Sum of the holds granted and not yet seen to end. Locked by hold alone, in short transactions.';

CREATE TABLE meterbook.key_conflict (
    id bigint NOT NULL,
    key uuid NOT NULL,
    at timestamp with time zone NOT NULL,
    first_said jsonb NOT NULL,
    then_said jsonb NOT NULL
);

COMMENT ON TABLE meterbook.key_conflict IS 'Keys that were used again for something else, with both versions: counted, visible, never charged.';

ALTER TABLE meterbook.key_conflict ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.key_conflict_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE meterbook.late_entry (
    entity_id bigint NOT NULL,
    key uuid NOT NULL,
    stamped bigint NOT NULL,
    booked bigint NOT NULL,
    day integer
);

COMMENT ON TABLE meterbook.late_entry IS 'Entries that became visible after their period was sealed: their stamp stays, they are booked to the open period.';

CREATE TABLE meterbook.ledger (
    id smallint DEFAULT 1 NOT NULL,
    currency text NOT NULL,
    free_period text NOT NULL,
    is_demo boolean DEFAULT false NOT NULL,
    uuid uuid DEFAULT gen_random_uuid() NOT NULL,
    CONSTRAINT ledger_currency_is_iso_4217 CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT ledger_free_period_is_known CHECK ((free_period = ANY (ARRAY['lifetime'::text, 'calendar'::text]))),
    CONSTRAINT ledger_is_one_row CHECK ((id = 1))
);

COMMENT ON COLUMN meterbook.ledger.is_demo IS 'What is in it was made up. Said before anything is in it, and for good: made-up rows never come among real ones.';

COMMENT ON COLUMN meterbook.ledger.uuid IS 'Names this ledger in idempotency keys and metadata: two ledgers may share one Stripe account.';

CREATE TABLE meterbook.member (
    id bigint NOT NULL,
    organization_id bigint NOT NULL,
    actor_id bigint NOT NULL,
    role text NOT NULL,
    joined_at timestamp with time zone NOT NULL,
    left_at timestamp with time zone,
    CONSTRAINT member_leaves_after_joining CHECK ((left_at >= joined_at)),
    CONSTRAINT member_role_is_known CHECK ((role = ANY (ARRAY['owner'::text, 'admin'::text, 'member'::text])))
);

CREATE TABLE meterbook.member_cap (
    organization_id bigint NOT NULL,
    actor_id bigint NOT NULL,
    cap numeric NOT NULL,
    CONSTRAINT member_cap_is_money CHECK (((cap >= (0)::numeric) AND (cap < '1000000000000'::numeric)))
);

ALTER TABLE meterbook.member ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.member_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE meterbook.migration (
    number integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE meterbook.moved_entity (
    entity_id bigint NOT NULL,
    id bigint NOT NULL,
    since timestamp with time zone NOT NULL
);

COMMENT ON TABLE meterbook.moved_entity IS 'Entities whose total or limit moved, or will at `since`, and that nobody has looked at for thresholds and alerts yet. A row a move, so that one that comes while somebody looks is not forgotten with those that were seen, and nobody waits for anybody.';

ALTER TABLE meterbook.moved_entity ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.moved_entity_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE meterbook.organization (
    entity_id bigint NOT NULL,
    owner_id bigint,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE meterbook.outbox (
    id bigint NOT NULL,
    entity_id bigint NOT NULL,
    kind text NOT NULL,
    dedupe_key text NOT NULL,
    payload jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT outbox_kind_is_not_empty CHECK ((kind <> ''::text))
);

COMMENT ON TABLE meterbook.outbox IS 'What has to be told to others, written in the transaction that decided it (I3).';

COMMENT ON COLUMN meterbook.outbox.kind IS 'charge, cancel_at_period_end, cancel_now, seats, alert. One that the relay does not know (a newer version wrote it) is dead-lettered.';

CREATE TABLE meterbook.outbox_delivery (
    outbox_id bigint NOT NULL,
    state text DEFAULT 'due'::text NOT NULL,
    due_at timestamp with time zone NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    first_try_at timestamp with time zone,
    lease bigint,
    step text DEFAULT ''::text NOT NULL,
    step_since timestamp with time zone,
    round integer DEFAULT 1 NOT NULL,
    invoice text,
    item text,
    note text,
    settled_at timestamp with time zone,
    CONSTRAINT outbox_delivery_leased_by_somebody CHECK (((state = 'leased'::text) = (lease IS NOT NULL))),
    CONSTRAINT outbox_delivery_settled_at_its_end CHECK (((state = ANY (ARRAY['delivered'::text, 'dead'::text])) = (settled_at IS NOT NULL))),
    CONSTRAINT outbox_delivery_state_is_known CHECK ((state = ANY (ARRAY['due'::text, 'leased'::text, 'delivered'::text, 'dead'::text])))
);

COMMENT ON TABLE meterbook.outbox_delivery IS 'What became of each outbox row. due_at: the next try, or the end of the lease. note: the last error, or what came of it.';

COMMENT ON COLUMN meterbook.outbox_delivery.step IS 'The step begun last; step_since: when it was first sent under its idempotency key, of which `round` is part.';

ALTER TABLE meterbook.outbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE SEQUENCE meterbook.outbox_lease
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE meterbook.period_baseline (
    entity_id bigint NOT NULL,
    period_id bigint NOT NULL,
    amount numeric NOT NULL,
    CONSTRAINT period_baseline_is_money CHECK (((amount >= (0)::numeric) AND (amount < '1000000000000'::numeric)))
);

CREATE TABLE meterbook.period_baseline_day (
    entity_id bigint NOT NULL,
    period_id bigint NOT NULL,
    day integer NOT NULL,
    amount numeric NOT NULL,
    CONSTRAINT period_baseline_day_is_money CHECK (((amount >= (0)::numeric) AND (amount < '1000000000000'::numeric)))
);

COMMENT ON TABLE meterbook.period_baseline_day IS 'The days that legacy audit rows give the baseline, oldest first until it is used up; the rest has no day and is not refreshed.';

CREATE TABLE meterbook.sealed_actor (
    entity_id bigint NOT NULL,
    period_id bigint NOT NULL,
    actor_id bigint NOT NULL,
    amount numeric NOT NULL,
    entries bigint NOT NULL
);

CREATE TABLE meterbook.sealed_period (
    entity_id bigint NOT NULL,
    period_id bigint NOT NULL,
    closed_at timestamp with time zone NOT NULL,
    baseline numeric NOT NULL,
    amount numeric NOT NULL,
    entries bigint NOT NULL,
    digest numeric NOT NULL,
    refresh numeric NOT NULL,
    effective numeric NOT NULL,
    overage numeric NOT NULL,
    charged_cents bigint NOT NULL,
    credits_cents bigint NOT NULL,
    written_off_cents bigint NOT NULL,
    given_back_cents bigint NOT NULL
);

COMMENT ON TABLE meterbook.sealed_period IS 'Final figures of a closed period, whole; what becomes visible later is late.';

CREATE TABLE meterbook.shadowed_entity (
    entity_id bigint NOT NULL,
    since timestamp with time zone NOT NULL
);

COMMENT ON TABLE meterbook.shadowed_entity IS 'Entities that somebody else still counts and bills (BEHAVIOUR §13, shadow): recorded and read here, but not billed, closed, or told to anybody.';

CREATE TABLE meterbook.stripe_event (
    id text NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    body text NOT NULL,
    state text DEFAULT 'pending'::text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    note text,
    settled_at timestamp with time zone,
    CONSTRAINT stripe_event_settled_at_its_end CHECK (((state = ANY (ARRAY['applied'::text, 'ignored'::text, 'stale'::text])) = (settled_at IS NOT NULL))),
    CONSTRAINT stripe_event_state_is_known CHECK ((state = ANY (ARRAY['pending'::text, 'applied'::text, 'ignored'::text, 'stale'::text, 'failed'::text])))
);

COMMENT ON TABLE meterbook.stripe_event IS 'Events as Stripe sent them. stale: older than what was known; pending: it never came to an end; failed: note says why, and it can be replayed.';

COMMENT ON COLUMN meterbook.stripe_event.subject IS 'The id of the object that the event is about.';

CREATE TABLE meterbook.stripe_settled (
    reference text NOT NULL,
    outcome text NOT NULL,
    settled_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE meterbook.stripe_settled IS 'Invoices and disputes that block nobody any more, also when the event that would block arrives later.';

CREATE TABLE meterbook.stripe_subscription (
    id text NOT NULL,
    seen_at timestamp with time zone,
    seen_rank smallint DEFAULT 0 NOT NULL,
    seen_event text DEFAULT ''::text NOT NULL,
    owner_said text,
    monthly_price numeric,
    invoiced_starts_at timestamp with time zone,
    invoiced_ends_at timestamp with time zone
);

COMMENT ON TABLE meterbook.stripe_subscription IS 'The newest event applied of each subscription at Stripe, by Stripe''s own time, and what its metadata and invoices said last.';

CREATE TABLE meterbook.subscription_segment (
    owner_id bigint NOT NULL,
    id bigint NOT NULL,
    subscription_id text NOT NULL,
    effective_at timestamp with time zone NOT NULL,
    plan text NOT NULL,
    seats integer NOT NULL,
    included numeric,
    refresh_per_day numeric NOT NULL,
    noted_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE meterbook.subscription_segment IS 'Plan and seats of a subscription from an instant on; a period''s allowance is the largest that was in force in it.';

ALTER TABLE meterbook.subscription_segment ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME meterbook.subscription_segment_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE meterbook.usage_delta (
    entity_id bigint NOT NULL,
    period_id bigint NOT NULL,
    day integer,
    actor_id bigint NOT NULL,
    source text NOT NULL,
    description text NOT NULL,
    amount numeric NOT NULL,
    entries bigint NOT NULL,
    digest numeric NOT NULL,
    keys uuid[] NOT NULL,
    recorded_at timestamp with time zone NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='20000', autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE meterbook.usage_delta IS 'What recorders append and the compactor consumes: no row is ever updated, so none is hot.';

CREATE TABLE meterbook.usage_log (
    entity_id bigint NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    key uuid NOT NULL,
    period_id bigint NOT NULL,
    belongs_to bigint,
    day integer,
    actor_id bigint NOT NULL,
    occurred_at meterbook.usage_time NOT NULL,
    amount meterbook.usage_amount NOT NULL,
    category meterbook.usage_category NOT NULL,
    source meterbook.usage_source NOT NULL,
    description meterbook.usage_description NOT NULL,
    workspace text,
    workflow text,
    execution text,
    source_reference text,
    line text,
    corrects uuid,
    reason text,
    CONSTRAINT usage_log_usage_is_positive CHECK ((((amount)::numeric > (0)::numeric) OR (corrects IS NOT NULL)))
)
PARTITION BY RANGE (recorded_at);

COMMENT ON COLUMN meterbook.usage_log.belongs_to IS 'The closed period that a late entry belongs to; period_id is where it is booked.';

COMMENT ON COLUMN meterbook.usage_log.day IS 'Bucket of 24 hours from the period''s start; null: given back in money, in the total but in no effective usage.';

CREATE TABLE meterbook.usage_log_default (
    entity_id bigint CONSTRAINT usage_log_entity_id_not_null NOT NULL,
    recorded_at timestamp with time zone CONSTRAINT usage_log_recorded_at_not_null NOT NULL,
    key uuid CONSTRAINT usage_log_key_not_null NOT NULL,
    period_id bigint CONSTRAINT usage_log_period_id_not_null NOT NULL,
    belongs_to bigint,
    day integer,
    actor_id bigint CONSTRAINT usage_log_actor_id_not_null NOT NULL,
    occurred_at meterbook.usage_time CONSTRAINT usage_log_occurred_at_not_null NOT NULL,
    amount meterbook.usage_amount CONSTRAINT usage_log_amount_not_null NOT NULL,
    category meterbook.usage_category CONSTRAINT usage_log_category_not_null NOT NULL,
    source meterbook.usage_source CONSTRAINT usage_log_source_not_null NOT NULL,
    description meterbook.usage_description CONSTRAINT usage_log_description_not_null NOT NULL,
    workspace text,
    workflow text,
    execution text,
    source_reference text,
    line text,
    corrects uuid,
    reason text,
    CONSTRAINT usage_log_usage_is_positive CHECK ((((amount)::numeric > (0)::numeric) OR (corrects IS NOT NULL)))
);

CREATE TABLE meterbook.usage_rollup (
    entity_id bigint NOT NULL,
    period_id bigint NOT NULL,
    grain text NOT NULL,
    part text NOT NULL,
    detail text NOT NULL,
    amount numeric NOT NULL,
    entries bigint NOT NULL,
    digest numeric NOT NULL,
    descriptions integer DEFAULT 0 NOT NULL,
    CONSTRAINT usage_rollup_grain_is_known CHECK ((grain = ANY (ARRAY['total'::text, 'day'::text, 'actor'::text, 'description'::text])))
)
WITH (fillfactor='70');

COMMENT ON TABLE meterbook.usage_rollup IS 'Sums of consumed deltas: total, by day, by actor, by source (part) and description (detail). With the deltas left, exact.';

CREATE TABLE meterbook.workspace (
    external_id text NOT NULL,
    payer_id bigint
);

COMMENT ON COLUMN meterbook.workspace.payer_id IS 'Exactly this entity pays, whoever the actor is; null leaves it to the actor.';

ALTER TABLE ONLY meterbook.usage_log ATTACH PARTITION meterbook.usage_log_default DEFAULT;

ALTER TABLE ONLY meterbook.act_detail
    ADD CONSTRAINT act_detail_pkey PRIMARY KEY (act_id);

ALTER TABLE ONLY meterbook.act_log
    ADD CONSTRAINT act_log_pkey PRIMARY KEY (id);

ALTER TABLE ONLY meterbook.act_outcome
    ADD CONSTRAINT act_outcome_pkey PRIMARY KEY (act_id);

ALTER TABLE ONLY meterbook.actor
    ADD CONSTRAINT actor_is_named_once UNIQUE (external_id);

ALTER TABLE ONLY meterbook.actor
    ADD CONSTRAINT actor_pkey PRIMARY KEY (id);

ALTER TABLE ONLY meterbook.alert_mark
    ADD CONSTRAINT alert_mark_pkey PRIMARY KEY (entity_id, period_id, mark);

ALTER TABLE ONLY meterbook.api_key
    ADD CONSTRAINT api_key_pkey PRIMARY KEY (id);

ALTER TABLE ONLY meterbook.api_key
    ADD CONSTRAINT api_key_prefix_is_taken UNIQUE (prefix);

ALTER TABLE ONLY meterbook.billing_entity
    ADD CONSTRAINT billing_entity_is_named_once UNIQUE (kind, external_id);

ALTER TABLE ONLY meterbook.billing_entity
    ADD CONSTRAINT billing_entity_pkey PRIMARY KEY (id);

ALTER TABLE ONLY meterbook.billing_period
    ADD CONSTRAINT billing_period_dated_never_overlap EXCLUDE USING gist (int8range(hashtextextended(subscription_id, entity_id), hashtextextended(subscription_id, entity_id), '[]'::text) WITH &&, tstzrange(starts_at, ends_at) WITH &&) WHERE (starts_with(kind, 'dated'::text));

ALTER TABLE ONLY meterbook.billing_period
    ADD CONSTRAINT billing_period_free_never_overlap EXCLUDE USING gist (int8range(entity_id, entity_id, '[]'::text) WITH &&, tstzrange(starts_at, ends_at) WITH &&) WHERE (starts_with(kind, 'free'::text));

ALTER TABLE ONLY meterbook.billing_period
    ADD CONSTRAINT billing_period_pkey PRIMARY KEY (entity_id, id);

ALTER TABLE ONLY meterbook.charge
    ADD CONSTRAINT charge_pkey PRIMARY KEY (entity_id, id);

ALTER TABLE ONLY meterbook.correction
    ADD CONSTRAINT correction_pkey PRIMARY KEY (entity_id, key);

ALTER TABLE ONLY meterbook.credit_grant
    ADD CONSTRAINT credit_grant_is_named_once UNIQUE (grant_key);

ALTER TABLE ONLY meterbook.credit_grant
    ADD CONSTRAINT credit_grant_pkey PRIMARY KEY (entity_id, id);

ALTER TABLE ONLY meterbook.credit_spend
    ADD CONSTRAINT credit_spend_pkey PRIMARY KEY (entity_id, grant_id, id);

ALTER TABLE ONLY meterbook.cumulative_request
    ADD CONSTRAINT cumulative_request_pkey PRIMARY KEY (request);

ALTER TABLE ONLY meterbook.cumulative_rise
    ADD CONSTRAINT cumulative_rise_pkey PRIMARY KEY (entity_id, key);

ALTER TABLE ONLY meterbook.cutover_counter
    ADD CONSTRAINT cutover_counter_pkey PRIMARY KEY (name);

ALTER TABLE ONLY meterbook.cutover_entity
    ADD CONSTRAINT cutover_entity_pkey PRIMARY KEY (entity_id);

ALTER TABLE ONLY meterbook.cutover_fall
    ADD CONSTRAINT cutover_fall_pkey PRIMARY KEY (id);

ALTER TABLE ONLY meterbook.cutover_mirror
    ADD CONSTRAINT cutover_mirror_pkey PRIMARY KEY (kind, id);

ALTER TABLE ONLY meterbook.cutover
    ADD CONSTRAINT cutover_pkey PRIMARY KEY (id);

ALTER TABLE ONLY meterbook.cutover_refusal
    ADD CONSTRAINT cutover_refusal_pkey PRIMARY KEY (subject);

ALTER TABLE ONLY meterbook.cutover_return
    ADD CONSTRAINT cutover_return_pkey PRIMARY KEY (entity_id, user_id);

ALTER TABLE ONLY meterbook.cutover_row
    ADD CONSTRAINT cutover_row_pkey PRIMARY KEY (audit_id);

ALTER TABLE ONLY meterbook.deferred_close
    ADD CONSTRAINT deferred_close_pkey PRIMARY KEY (entity_id, period_id);

ALTER TABLE ONLY meterbook.entity_block
    ADD CONSTRAINT entity_block_pkey PRIMARY KEY (entity_id, reason, reference);

ALTER TABLE ONLY meterbook.entity_limit
    ADD CONSTRAINT entity_limit_pkey PRIMARY KEY (entity_id);

ALTER TABLE ONLY meterbook.entry_correction
    ADD CONSTRAINT entry_correction_pkey PRIMARY KEY (entity_id, key);

ALTER TABLE ONLY meterbook.entry_metadata
    ADD CONSTRAINT entry_metadata_pkey PRIMARY KEY (entity_id, key);

ALTER TABLE ONLY meterbook.event_key
    ADD CONSTRAINT event_key_pkey PRIMARY KEY (key);

ALTER TABLE ONLY meterbook.hold_end
    ADD CONSTRAINT hold_end_pkey PRIMARY KEY (entity_id, hold_key);

ALTER TABLE ONLY meterbook.hold_gate
    ADD CONSTRAINT hold_gate_pkey PRIMARY KEY (entity_id);

ALTER TABLE ONLY meterbook.hold
    ADD CONSTRAINT hold_pkey PRIMARY KEY (hold_key);

ALTER TABLE ONLY meterbook.key_conflict
    ADD CONSTRAINT key_conflict_pkey PRIMARY KEY (id);

ALTER TABLE ONLY meterbook.late_entry
    ADD CONSTRAINT late_entry_pkey PRIMARY KEY (entity_id, key);

ALTER TABLE ONLY meterbook.ledger
    ADD CONSTRAINT ledger_pkey PRIMARY KEY (id);

ALTER TABLE ONLY meterbook.member_cap
    ADD CONSTRAINT member_cap_pkey PRIMARY KEY (organization_id, actor_id);

ALTER TABLE ONLY meterbook.member
    ADD CONSTRAINT member_pkey PRIMARY KEY (id);

ALTER TABLE ONLY meterbook.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (number);

ALTER TABLE ONLY meterbook.moved_entity
    ADD CONSTRAINT moved_entity_pkey PRIMARY KEY (entity_id, id);

ALTER TABLE ONLY meterbook.organization
    ADD CONSTRAINT organization_pkey PRIMARY KEY (entity_id);

ALTER TABLE ONLY meterbook.outbox_delivery
    ADD CONSTRAINT outbox_delivery_pkey PRIMARY KEY (outbox_id);

ALTER TABLE ONLY meterbook.outbox
    ADD CONSTRAINT outbox_is_said_once UNIQUE (dedupe_key);

ALTER TABLE ONLY meterbook.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY meterbook.period_baseline_day
    ADD CONSTRAINT period_baseline_day_pkey PRIMARY KEY (entity_id, period_id, day);

ALTER TABLE ONLY meterbook.period_baseline
    ADD CONSTRAINT period_baseline_pkey PRIMARY KEY (entity_id, period_id);

ALTER TABLE ONLY meterbook.period_clock
    ADD CONSTRAINT period_clock_pkey PRIMARY KEY (entity_id);

ALTER TABLE ONLY meterbook.sealed_actor
    ADD CONSTRAINT sealed_actor_pkey PRIMARY KEY (entity_id, period_id, actor_id);

ALTER TABLE ONLY meterbook.sealed_period
    ADD CONSTRAINT sealed_period_pkey PRIMARY KEY (entity_id, period_id);

ALTER TABLE ONLY meterbook.shadowed_entity
    ADD CONSTRAINT shadowed_entity_pkey PRIMARY KEY (entity_id);

ALTER TABLE ONLY meterbook.stripe_event
    ADD CONSTRAINT stripe_event_pkey PRIMARY KEY (id);

ALTER TABLE ONLY meterbook.stripe_settled
    ADD CONSTRAINT stripe_settled_pkey PRIMARY KEY (reference);

ALTER TABLE ONLY meterbook.stripe_subscription
    ADD CONSTRAINT stripe_subscription_pkey PRIMARY KEY (id);

ALTER TABLE ONLY meterbook.subscription
    ADD CONSTRAINT subscription_pkey PRIMARY KEY (id);

ALTER TABLE ONLY meterbook.subscription_segment
    ADD CONSTRAINT subscription_segment_pkey PRIMARY KEY (owner_id, id);

ALTER TABLE ONLY meterbook.usage_log
    ADD CONSTRAINT usage_log_pkey PRIMARY KEY (entity_id, recorded_at, key);

ALTER TABLE ONLY meterbook.usage_log_default
    ADD CONSTRAINT usage_log_default_pkey PRIMARY KEY (entity_id, recorded_at, key);

ALTER TABLE ONLY meterbook.usage_rollup
    ADD CONSTRAINT usage_rollup_pkey PRIMARY KEY (entity_id, period_id, grain, part, detail);

ALTER TABLE ONLY meterbook.workspace
    ADD CONSTRAINT workspace_pkey PRIMARY KEY (external_id);

CREATE INDEX act_detail_by_subject ON meterbook.act_detail USING btree (subject, act_id);

CREATE INDEX billing_period_by_time ON meterbook.billing_period USING btree (entity_id, kind, starts_at);

CREATE INDEX billing_period_to_close ON meterbook.billing_period USING btree (ends_at) WHERE (state <> 'closed'::text);

CREATE UNIQUE INDEX charge_final_once ON meterbook.charge USING btree (entity_id, period_id) WHERE (kind = 'final'::text);

CREATE INDEX charge_of_period ON meterbook.charge USING btree (entity_id, period_id);

CREATE INDEX correction_of_period ON meterbook.correction USING btree (entity_id, of_period);

CREATE INDEX cutover_counter_of_entity ON meterbook.cutover_counter USING btree (entity_id);

CREATE INDEX cutover_fall_of_owner ON meterbook.cutover_fall USING btree (owner, id);

CREATE INDEX cutover_row_of_counter ON meterbook.cutover_row USING btree (counter, epoch);

CREATE INDEX hold_active ON meterbook.hold USING btree (entity_id, expires_at) WHERE (state = 'active'::text);

CREATE INDEX hold_of_entity ON meterbook.hold USING btree (entity_id, granted_at);

CREATE UNIQUE INDEX member_of_one_organization ON meterbook.member USING btree (actor_id) WHERE (left_at IS NULL);

CREATE INDEX member_of_organization ON meterbook.member USING btree (organization_id) WHERE (left_at IS NULL);

CREATE INDEX outbox_cancellations ON meterbook.outbox USING btree (((payload ->> 'subscription'::text))) WHERE (kind = 'cancel_at_period_end'::text);

CREATE INDEX outbox_delivery_dead ON meterbook.outbox_delivery USING btree (outbox_id) WHERE (state = 'dead'::text);

CREATE INDEX outbox_delivery_due ON meterbook.outbox_delivery USING btree (due_at) WHERE (state = ANY (ARRAY['due'::text, 'leased'::text]));

CREATE INDEX outbox_delivery_of_invoice ON meterbook.outbox_delivery USING btree (invoice) WHERE (invoice IS NOT NULL);

CREATE INDEX stripe_event_by_time ON meterbook.stripe_event USING btree (received_at);

CREATE INDEX stripe_event_waiting ON meterbook.stripe_event USING btree (created_at, id) WHERE (state = ANY (ARRAY['pending'::text, 'failed'::text]));

CREATE INDEX subscription_of_customer ON meterbook.subscription USING btree (stripe_customer);

CREATE INDEX subscription_of_owner ON meterbook.subscription USING btree (owner_id);

CREATE INDEX subscription_of_stripe ON meterbook.subscription USING btree (stripe_subscription);

CREATE INDEX subscription_segment_by_time ON meterbook.subscription_segment USING btree (subscription_id, effective_at);

CREATE INDEX usage_delta_of_period ON meterbook.usage_delta USING btree (entity_id, period_id);

CREATE INDEX usage_log_late ON ONLY meterbook.usage_log USING btree (entity_id, period_id) WHERE (belongs_to IS NOT NULL);

CREATE INDEX usage_log_default_entity_id_period_id_idx ON meterbook.usage_log_default USING btree (entity_id, period_id) WHERE (belongs_to IS NOT NULL);

ALTER INDEX meterbook.usage_log_late ATTACH PARTITION meterbook.usage_log_default_entity_id_period_id_idx;

ALTER INDEX meterbook.usage_log_pkey ATTACH PARTITION meterbook.usage_log_default_pkey;

CREATE TRIGGER act_log_is_append_only BEFORE DELETE OR UPDATE ON meterbook.act_log FOR EACH ROW EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.act_log ENABLE ALWAYS TRIGGER act_log_is_append_only;

CREATE TRIGGER act_log_is_not_truncated BEFORE TRUNCATE ON meterbook.act_log FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.act_log ENABLE ALWAYS TRIGGER act_log_is_not_truncated;

CREATE TRIGGER act_outcome_is_append_only BEFORE DELETE OR UPDATE ON meterbook.act_outcome FOR EACH ROW EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.act_outcome ENABLE ALWAYS TRIGGER act_outcome_is_append_only;

CREATE TRIGGER act_outcome_is_not_truncated BEFORE TRUNCATE ON meterbook.act_outcome FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.act_outcome ENABLE ALWAYS TRIGGER act_outcome_is_not_truncated;

CREATE TRIGGER charge_is_append_only BEFORE DELETE OR UPDATE ON meterbook.charge FOR EACH ROW EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.charge ENABLE ALWAYS TRIGGER charge_is_append_only;

CREATE TRIGGER charge_is_not_truncated BEFORE TRUNCATE ON meterbook.charge FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.charge ENABLE ALWAYS TRIGGER charge_is_not_truncated;

CREATE TRIGGER correction_is_append_only BEFORE DELETE OR UPDATE ON meterbook.correction FOR EACH ROW EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.correction ENABLE ALWAYS TRIGGER correction_is_append_only;

CREATE TRIGGER correction_is_not_truncated BEFORE TRUNCATE ON meterbook.correction FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.correction ENABLE ALWAYS TRIGGER correction_is_not_truncated;

CREATE TRIGGER credit_grant_is_append_only BEFORE DELETE OR UPDATE ON meterbook.credit_grant FOR EACH ROW EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.credit_grant ENABLE ALWAYS TRIGGER credit_grant_is_append_only;

CREATE TRIGGER credit_grant_is_not_truncated BEFORE TRUNCATE ON meterbook.credit_grant FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.credit_grant ENABLE ALWAYS TRIGGER credit_grant_is_not_truncated;

CREATE TRIGGER credit_spend_is_append_only BEFORE DELETE OR UPDATE ON meterbook.credit_spend FOR EACH ROW EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.credit_spend ENABLE ALWAYS TRIGGER credit_spend_is_append_only;

CREATE TRIGGER credit_spend_is_not_truncated BEFORE TRUNCATE ON meterbook.credit_spend FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.credit_spend ENABLE ALWAYS TRIGGER credit_spend_is_not_truncated;

CREATE TRIGGER cumulative_rise_is_append_only BEFORE DELETE OR UPDATE ON meterbook.cumulative_rise FOR EACH ROW EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.cumulative_rise ENABLE ALWAYS TRIGGER cumulative_rise_is_append_only;

CREATE TRIGGER cumulative_rise_is_not_truncated BEFORE TRUNCATE ON meterbook.cumulative_rise FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.cumulative_rise ENABLE ALWAYS TRIGGER cumulative_rise_is_not_truncated;

CREATE TRIGGER event_key_is_append_only BEFORE DELETE OR UPDATE ON meterbook.event_key FOR EACH ROW EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.event_key ENABLE ALWAYS TRIGGER event_key_is_append_only;

CREATE TRIGGER event_key_is_not_truncated BEFORE TRUNCATE ON meterbook.event_key FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.event_key ENABLE ALWAYS TRIGGER event_key_is_not_truncated;

CREATE TRIGGER late_entry_is_append_only BEFORE DELETE OR UPDATE ON meterbook.late_entry FOR EACH ROW EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.late_entry ENABLE ALWAYS TRIGGER late_entry_is_append_only;

CREATE TRIGGER late_entry_is_not_truncated BEFORE TRUNCATE ON meterbook.late_entry FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.late_entry ENABLE ALWAYS TRIGGER late_entry_is_not_truncated;

CREATE TRIGGER outbox_expects_delivery AFTER INSERT ON meterbook.outbox FOR EACH ROW EXECUTE FUNCTION meterbook.expect_delivery();

CREATE TRIGGER sealed_actor_is_append_only BEFORE DELETE OR UPDATE ON meterbook.sealed_actor FOR EACH ROW EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.sealed_actor ENABLE ALWAYS TRIGGER sealed_actor_is_append_only;

CREATE TRIGGER sealed_actor_is_not_truncated BEFORE TRUNCATE ON meterbook.sealed_actor FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.sealed_actor ENABLE ALWAYS TRIGGER sealed_actor_is_not_truncated;

CREATE TRIGGER sealed_period_is_append_only BEFORE DELETE OR UPDATE ON meterbook.sealed_period FOR EACH ROW EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.sealed_period ENABLE ALWAYS TRIGGER sealed_period_is_append_only;

CREATE TRIGGER sealed_period_is_not_truncated BEFORE TRUNCATE ON meterbook.sealed_period FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.sealed_period ENABLE ALWAYS TRIGGER sealed_period_is_not_truncated;

CREATE TRIGGER subscription_segment_is_append_only BEFORE DELETE OR UPDATE ON meterbook.subscription_segment FOR EACH ROW EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.subscription_segment ENABLE ALWAYS TRIGGER subscription_segment_is_append_only;

CREATE TRIGGER subscription_segment_is_not_truncated BEFORE TRUNCATE ON meterbook.subscription_segment FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.subscription_segment ENABLE ALWAYS TRIGGER subscription_segment_is_not_truncated;

CREATE TRIGGER usage_log_is_append_only BEFORE DELETE OR UPDATE ON meterbook.usage_log FOR EACH ROW EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.usage_log ENABLE ALWAYS TRIGGER usage_log_is_append_only;

CREATE TRIGGER usage_log_is_not_truncated BEFORE TRUNCATE ON meterbook.usage_log FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.usage_log ENABLE ALWAYS TRIGGER usage_log_is_not_truncated;

CREATE TRIGGER usage_log_is_not_truncated BEFORE TRUNCATE ON meterbook.usage_log_default FOR EACH STATEMENT EXECUTE FUNCTION meterbook.refuse_change();

ALTER TABLE meterbook.usage_log_default ENABLE ALWAYS TRIGGER usage_log_is_not_truncated;

ALTER TABLE ONLY meterbook.api_key
    ADD CONSTRAINT api_key_replaces_a_key FOREIGN KEY (replaces) REFERENCES meterbook.api_key(id);

ALTER TABLE ONLY meterbook.member
    ADD CONSTRAINT member_actor_id_fkey FOREIGN KEY (actor_id) REFERENCES meterbook.actor(id);

ALTER TABLE ONLY meterbook.organization
    ADD CONSTRAINT organization_entity_id_fkey FOREIGN KEY (entity_id) REFERENCES meterbook.billing_entity(id);

ALTER TABLE ONLY meterbook.organization
    ADD CONSTRAINT organization_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES meterbook.actor(id);

ALTER TABLE ONLY meterbook.outbox_delivery
    ADD CONSTRAINT outbox_delivery_outbox_id_fkey FOREIGN KEY (outbox_id) REFERENCES meterbook.outbox(id);

ALTER TABLE ONLY meterbook.subscription
    ADD CONSTRAINT subscription_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES meterbook.billing_entity(id);

ALTER TABLE ONLY meterbook.workspace
    ADD CONSTRAINT workspace_payer_id_fkey FOREIGN KEY (payer_id) REFERENCES meterbook.billing_entity(id);

GRANT USAGE ON SCHEMA meterbook TO meterbook_writer;
GRANT USAGE ON SCHEMA meterbook TO meterbook_reader;
GRANT USAGE ON SCHEMA meterbook TO meterbook_importer;
GRANT USAGE ON SCHEMA meterbook TO meterbook_keeper;

REVOKE ALL ON FUNCTION meterbook.actors_of(entities bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.add_member(organization text, person text, role text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.add_member(organization text, person text, role text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.add_member(organization text, person text, role text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.admission_party(actor text, workspace text, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.admission_terms(actor text, workspace text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.admission_terms(actor text, workspace text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.admission_terms(actor text, workspace text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.allowance_of(the_subscription text, starts timestamp with time zone, ends timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.allowance_of(the_subscription text, starts timestamp with time zone, ends timestamp with time zone) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.allowance_of(the_subscription text, starts timestamp with time zone, ends timestamp with time zone) TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.subscription TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.subscription TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.amend_periods(s meterbook.subscription, previous_owner bigint, effective timestamp with time zone, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.answer(keys uuid[], fingerprints uuid[], actors text[], amounts numeric[], occurred_ats timestamp with time zone[], workspaces text[], entities text[], periods bigint[], payer_ids bigint[], payer_periods bigint[], payers text[], at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.applied_migrations() FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.applied_migrations() TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.applied_migrations() TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.applied_migrations() TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.arm_marks(the_entity bigint, the_period bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.arm_marks(the_entity bigint, the_period bigint) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.arm_marks(the_entity bigint, the_period bigint) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.attribute(actors text[], entities text[], workspaces text[], at timestamp with time zone, lock_wait_ms integer) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.attribute(actors text[], entities text[], workspaces text[], at timestamp with time zone, lock_wait_ms integer) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.attribute(actors text[], entities text[], workspaces text[], at timestamp with time zone, lock_wait_ms integer) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.begin_act(by_whom text, act text, subject text, said jsonb, request text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.begin_act(by_whom text, act text, subject text, said jsonb, request text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.begin_act(by_whom text, act text, subject text, said jsonb, request text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.begin_cancellations(actors bigint[], at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.begin_demo() FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.begin_step(the_id bigint, the_lease bigint, the_step text, the_round integer, invoice text, item text, lease_for interval, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.begin_step(the_id bigint, the_lease bigint, the_step text, the_round integer, invoice text, item text, lease_for interval, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.begin_step(the_id bigint, the_lease bigint, the_step text, the_round integer, invoice text, item text, lease_for interval, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.billing_differences(the_entity bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.billing_differences(the_entity bigint) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.billing_differences(the_entity bigint) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.block_by_stripe(the_entity bigint, reason text, reference text, event text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.block_by_stripe(the_entity bigint, reason text, reference text, event text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.block_by_stripe(the_entity bigint, reason text, reference text, event text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.bury_delivery(the_id bigint, the_lease bigint, note text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.bury_delivery(the_id bigint, the_lease bigint, note text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.bury_delivery(the_id bigint, the_lease bigint, note text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.carry_billed(the_entity bigint, the_period bigint, cents bigint, spent bigint, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.charge_and_seal_period(the_entity bigint, the_period bigint, charged bigint, credits bigint, written_off bigint, grant_ids bigint[], grant_cents bigint[], baseline numeric, refresh numeric, effective numeric, overage numeric, given_back bigint, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.charge_and_seal_period(the_entity bigint, the_period bigint, charged bigint, credits bigint, written_off bigint, grant_ids bigint[], grant_cents bigint[], baseline numeric, refresh numeric, effective numeric, overage numeric, given_back bigint, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.charge_and_seal_period(the_entity bigint, the_period bigint, charged bigint, credits bigint, written_off bigint, grant_ids bigint[], grant_cents bigint[], baseline numeric, refresh numeric, effective numeric, overage numeric, given_back bigint, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.claim_deliveries(without text[], how_many integer, lease_for interval, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.claim_deliveries(without text[], how_many integer, lease_for interval, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.claim_deliveries(without text[], how_many integer, lease_for interval, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.claim_marks(the_entity bigint, the_period bigint, marks smallint[], told smallint, payload jsonb, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.claim_marks(the_entity bigint, the_period bigint, marks smallint[], told smallint, payload jsonb, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.claim_marks(the_entity bigint, the_period bigint, marks smallint[], told smallint, payload jsonb, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.clashes_within(written meterbook.recorded[], keys uuid[], fingerprints uuid[], entities text[], periods bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.compact(deltas_max integer, at timestamp with time zone, descriptions_max integer) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.compact(deltas_max integer, at timestamp with time zone, descriptions_max integer) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.compact(deltas_max integer, at timestamp with time zone, descriptions_max integer) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.complete_delivery(the_id bigint, the_lease bigint, note text, sent jsonb, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.complete_delivery(the_id bigint, the_lease bigint, note text, sent jsonb, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.complete_delivery(the_id bigint, the_lease bigint, note text, sent jsonb, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.correct_entry(entry uuid, amount numeric, reason text, key uuid, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.correct_entry(entry uuid, amount numeric, reason text, key uuid, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.correct_entry(entry uuid, amount numeric, reason text, key uuid, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.correction_differences(the_entity bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.correction_differences(the_entity bigint) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.correction_differences(the_entity bigint) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.correction_fingerprint(entry uuid, amount numeric, currency text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.correction_fingerprint(entry uuid, amount numeric, currency text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.correction_fingerprint(entry uuid, amount numeric, currency text) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.correction_fingerprint(entry uuid, amount numeric, currency text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.corrections_of(the_entity bigint, the_period bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.corrections_of(the_entity bigint, the_period bigint) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.corrections_of(the_entity bigint, the_period bigint) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.day_in(occurred timestamp with time zone, starts timestamp with time zone, ends timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.day_in(occurred timestamp with time zone, starts timestamp with time zone, ends timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.day_in(occurred timestamp with time zone, starts timestamp with time zone, ends timestamp with time zone) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.day_in(occurred timestamp with time zone, starts timestamp with time zone, ends timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.debtors_of_invoice(the_invoice text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.debtors_of_invoice(the_invoice text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.debtors_of_invoice(the_invoice text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.decide_payers(actors bigint[], at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.delete_organization(organization text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.delete_organization(organization text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.delete_organization(organization text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.delete_user(person text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.delete_user(person text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.delete_user(person text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.differences(the_entity bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.differences(the_entity bigint) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.differences(the_entity bigint) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.digest_field(field text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.digest_field(field text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.digest_field(field text) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.digest_field(field text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.dismiss_stripe_event(the_id text, why text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.dismiss_stripe_event(the_id text, why text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.dismiss_stripe_event(the_id text, why text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.disown_cancellation(the_subscription text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.disown_cancellation(the_subscription text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.disown_cancellation(the_subscription text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.end_act(the_act bigint, outcome text, code text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.end_act(the_act bigint, outcome text, code text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.end_act(the_act bigint, outcome text, code text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.end_api_key(the_id bigint, ends_at timestamp with time zone, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.end_api_key(the_id bigint, ends_at timestamp with time zone, at timestamp with time zone) TO meterbook_keeper;

REVOKE ALL ON FUNCTION meterbook.end_holds(hold_keys text[], hows text[], settle_keys uuid[], settleds numeric[], at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.end_holds(hold_keys text[], hows text[], settle_keys uuid[], settleds numeric[], at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.end_holds(hold_keys text[], hows text[], settle_keys uuid[], settleds numeric[], at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.end_stripe_subscription(the_id text, ended_at timestamp with time zone, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.end_stripe_subscription(the_id text, ended_at timestamp with time zone, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.end_stripe_subscription(the_id text, ended_at timestamp with time zone, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.end_subscriptions(the_entity bigint, at timestamp with time zone) FROM PUBLIC;

GRANT SELECT ON TABLE meterbook.hold TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.hold TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.ending_of(h meterbook.hold, how text, settle_key uuid, settled numeric, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.ensure_partitions(months_ahead integer, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.ensure_partitions(months_ahead integer, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.ensure_partitions(months_ahead integer, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.entity_id_of(entity text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.entity_id_of(entity text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.entity_id_of(entity text) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.entity_id_of(entity text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.entry_differences(the_entity bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.entry_differences(the_entity bigint) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.entry_differences(the_entity bigint) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.erase_acts(person text, the_actor bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.erase_stripe_event(the_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.erase_stripe_event(the_id text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.erase_stripe_event(the_id text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.erase_stripe_events(the_entity bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.event_key(event_key text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.event_key(event_key text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.event_key(event_key text) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.event_key(event_key text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.event_waits(the_entity bigint, the_period bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.event_waits(the_entity bigint, the_period bigint) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.event_waits(the_entity bigint, the_period bigint) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.existing_organization(organization text) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.expect_delivery() FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.fence_due_period(the_entity bigint, the_period bigint, grace interval, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.fence_due_period(the_entity bigint, the_period bigint, grace interval, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.fence_due_period(the_entity bigint, the_period bigint, grace interval, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.fence_period(the_entity bigint, the_period bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.fence_period(the_entity bigint, the_period bigint) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.fence_period(the_entity bigint, the_period bigint) TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.api_key TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.api_key TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.find_api_key(the_prefix text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.find_api_key(the_prefix text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.find_api_key(the_prefix text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.fingerprint(actor text, category text, source text, description text, amount numeric, currency text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.fingerprint(actor text, category text, source text, description text, amount numeric, currency text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.fingerprint(actor text, category text, source text, description text, amount numeric, currency text) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.fingerprint(actor text, category text, source text, description text, amount numeric, currency text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.finish_stripe_event(the_id text, the_state text, the_note text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.finish_stripe_event(the_id text, the_state text, the_note text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.finish_stripe_event(the_id text, the_state text, the_note text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.first_flush(request text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.first_flush(request text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.first_flush(request text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.first_grant(grant_key text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.first_grant(grant_key text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.first_grant(grant_key text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.first_said(keys uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.first_said(keys uuid[]) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.first_said(keys uuid[]) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.fold_deltas(picked tid[], moment timestamp with time zone, descriptions_max integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.fold_period(the_entity bigint, the_period bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.forget_moved(the_entity bigint, ids bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.forget_moved(the_entity bigint, ids bigint[]) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.forget_moved(the_entity bigint, ids bigint[]) TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.billing_entity TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.billing_entity TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.goes_by(e meterbook.billing_entity, name text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.goes_by(e meterbook.billing_entity, name text) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.goes_by(e meterbook.billing_entity, name text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.goes_home(asked bigint, happened timestamp with time zone, home_since timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.grant_credit(the_entity bigint, grant_key text, cents bigint, source text, priority integer, expires_at timestamp with time zone, period bigint, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.grant_credit(the_entity bigint, grant_key text, cents bigint, source text, priority integer, expires_at timestamp with time zone, period bigint, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.grant_credit(the_entity bigint, grant_key text, cents bigint, source text, priority integer, expires_at timestamp with time zone, period bigint, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.grants_of(the_entity bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.grants_of(the_entity bigint) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.grants_of(the_entity bigint) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.held_by(the_entity bigint, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.held_by(the_entity bigint, at timestamp with time zone) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.held_by(the_entity bigint, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.hold_segment(s meterbook.subscription, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.holds_now(the_kind text, s meterbook.subscription) FROM PUBLIC;

GRANT SELECT ON TABLE meterbook.period_clock TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.period_clock TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.home_at(c meterbook.period_clock, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.home_at(c meterbook.period_clock, at timestamp with time zone) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.home_at(c meterbook.period_clock, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.import_history(entity text, starts timestamp with time zone, ends timestamp with time zone, keys uuid[], fingerprints uuid[], actors text[], amounts numeric[], categories text[], sources text[], descriptions text[], workflows text[], executions text[], occurred_ats timestamp with time zone[], at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.is_gone(e meterbook.billing_entity) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.join_organization(the_entity bigint, the_actor bigint, the_role text, moment timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.keep_addressee(known meterbook.subscription) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.key_weight(key uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.key_weight(key uuid) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.key_weight(key uuid) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.key_weight(key uuid) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.known_entity(entity text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.known_entity(entity text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.known_entity(entity text) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.known_entity(entity text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.known_holds(hold_keys text[], at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.known_holds(hold_keys text[], at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.known_holds(hold_keys text[], at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.late_parts(the_entity bigint, keys uuid[], at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.late_parts(the_entity bigint, keys uuid[], at timestamp with time zone) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.late_parts(the_entity bigint, keys uuid[], at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.leave_to_history(the_entity bigint, the_period bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.ledger_gauges(at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.ledger_gauges(at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.ledger_gauges(at timestamp with time zone) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.ledger_gauges(at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.lock_and_fold_period(the_entity bigint, the_period bigint, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.lock_and_fold_period(the_entity bigint, the_period bigint, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.lock_and_fold_period(the_entity bigint, the_period bigint, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.lock_and_read_gate(the_entity bigint, actors text[], workspaces text[], hold_keys text[], at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.lock_and_read_gate(the_entity bigint, actors text[], workspaces text[], hold_keys text[], at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.lock_and_read_gate(the_entity bigint, actors text[], workspaces text[], hold_keys text[], at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.lock_and_read_period(the_entity bigint, the_period bigint, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.lock_and_read_period(the_entity bigint, the_period bigint, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.lock_and_read_period(the_entity bigint, the_period bigint, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.lock_fold() FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.lock_gate(the_entity bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.lock_hold(hold_key text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.lock_hold(hold_key text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.lock_hold(hold_key text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.lock_members_of(entities bigint[], joining bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.lock_period(the_entity bigint, the_period bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.lock_period(the_entity bigint, the_period bigint) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.lock_period(the_entity bigint, the_period bigint) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.lock_stripe_event(the_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.lock_stripe_event(the_id text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.lock_stripe_event(the_id text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.lock_stripe_subscription(the_id text, event_at timestamp with time zone, named text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.lock_stripe_subscription(the_id text, event_at timestamp with time zone, named text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.lock_stripe_subscription(the_id text, event_at timestamp with time zone, named text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.look_again(the_entity bigint, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.make_api_key(prefix text, digest bytea, name text, scopes text[], by_whom text, expires_at timestamp with time zone, replaces bigint, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.make_api_key(prefix text, digest bytea, name text, scopes text[], by_whom text, expires_at timestamp with time zone, replaces bigint, at timestamp with time zone) TO meterbook_keeper;

REVOKE ALL ON FUNCTION meterbook.months_after(anchor timestamp with time zone, months integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.move_credits(from_entity bigint, to_entity bigint, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.note_api_key_use(the_id bigint, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.note_api_key_use(the_id bigint, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.note_api_key_use(the_id bigint, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.note_conflicts(keys uuid[], fingerprints uuid[], actors text[], categories text[], sources text[], descriptions text[], amounts numeric[], entities text[], periods bigint[], at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.note_conflicts(keys uuid[], fingerprints uuid[], actors text[], categories text[], sources text[], descriptions text[], amounts numeric[], entities text[], periods bigint[], at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.note_conflicts(keys uuid[], fingerprints uuid[], actors text[], categories text[], sources text[], descriptions text[], amounts numeric[], entities text[], periods bigint[], at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.note_fall() FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.note_invoiced_period(the_id text, starts_at timestamp with time zone, ends_at timestamp with time zone, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.note_invoiced_period(the_id text, starts_at timestamp with time zone, ends_at timestamp with time zone, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.note_invoiced_period(the_id text, starts_at timestamp with time zone, ends_at timestamp with time zone, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.note_past_terms(the_subscription text, plan text, seats integer, included numeric, refresh_per_day numeric, is_entitled boolean, starts_at timestamp with time zone, ends_at timestamp with time zone, interval_months integer, anchor timestamp with time zone, effective_at timestamp with time zone, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.note_past_terms(the_subscription text, plan text, seats integer, included numeric, refresh_per_day numeric, is_entitled boolean, starts_at timestamp with time zone, ends_at timestamp with time zone, interval_months integer, anchor timestamp with time zone, effective_at timestamp with time zone, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.note_past_terms(the_subscription text, plan text, seats integer, included numeric, refresh_per_day numeric, is_entitled boolean, starts_at timestamp with time zone, ends_at timestamp with time zone, interval_months integer, anchor timestamp with time zone, effective_at timestamp with time zone, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.note_segment(s meterbook.subscription, known meterbook.subscription, effective timestamp with time zone, said boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.note_stripe_subscription(the_id text, seen_at timestamp with time zone, seen_rank smallint, seen_event text, owner_said text, monthly_price numeric) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.note_stripe_subscription(the_id text, seen_at timestamp with time zone, seen_rank smallint, seen_event text, owner_said text, monthly_price numeric) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.note_stripe_subscription(the_id text, seen_at timestamp with time zone, seen_rank smallint, seen_event text, owner_said text, monthly_price numeric) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.open_free_period(the_entity bigint, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.open_past_window(s meterbook.subscription, was meterbook.subscription, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.open_periods(entities bigint[], at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.open_windows(s meterbook.subscription, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.organization_is_known(organization text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.organization_is_known(organization text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.organization_is_known(organization text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.owner_entity(owner text) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.owners_at_stripe(the_subscription text, customer text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.owners_at_stripe(the_subscription text, customer text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.owners_at_stripe(the_subscription text, customer text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.parties_of(actors text[], workspaces text[], entities text[], payer_ids bigint[], at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.parties_of(actors text[], workspaces text[], entities text[], payer_ids bigint[], at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.parties_of(actors text[], workspaces text[], entities text[], payer_ids bigint[], at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.pass_clocks(entities bigint[], actors bigint[], at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.pass_clocks(entities bigint[], actors bigint[], at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.pass_clocks(entities bigint[], actors bigint[], at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.payer_of(the_actor bigint, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.payer_of_entry(named text, attributed bigint, workspace text, actor_payer bigint, actor_payer_until timestamp with time zone, at timestamp with time zone, called text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.payer_of_entry(named text, attributed bigint, workspace text, actor_payer bigint, actor_payer_until timestamp with time zone, at timestamp with time zone, called text) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.payer_of_entry(named text, attributed bigint, workspace text, actor_payer bigint, actor_payer_until timestamp with time zone, at timestamp with time zone, called text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.pending_of(the_entity bigint, the_period bigint, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.pending_of(the_entity bigint, the_period bigint, at timestamp with time zone) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.pending_of(the_entity bigint, the_period bigint, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.period_terms(the_entity bigint, the_period bigint, at timestamp with time zone, breakdowns boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.period_terms(the_entity bigint, the_period bigint, at timestamp with time zone, breakdowns boolean) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.period_terms(the_entity bigint, the_period bigint, at timestamp with time zone, breakdowns boolean) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.permitted(at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.person(external_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.place(the_entity bigint, asked bigint, occurred timestamp with time zone, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.place(the_entity bigint, asked bigint, occurred timestamp with time zone, at timestamp with time zone) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.place(the_entity bigint, asked bigint, occurred timestamp with time zone, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.placed_entries(the_entity bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.placed_entries(the_entity bigint) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.placed_entries(the_entity bigint) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.postpone_delivery(the_id bigint, the_lease bigint, note text, delay interval, is_stuck boolean, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.postpone_delivery(the_id bigint, the_lease bigint, note text, delay interval, is_stuck boolean, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.postpone_delivery(the_id bigint, the_lease bigint, note text, delay interval, is_stuck boolean, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.put_organization(organization text, owner text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.put_organization(organization text, owner text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.put_organization(organization text, owner text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.put_subscription(id text, owner text, plan text, plan_rank integer, seats integer, included numeric, refresh_per_day numeric, status text, starts_at timestamp with time zone, ends_at timestamp with time zone, interval_months integer, anchor timestamp with time zone, cancel_at_period_end boolean, effective_at timestamp with time zone, stripe_customer text, stripe_subscription text, at timestamp with time zone, cancel_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.put_subscription(id text, owner text, plan text, plan_rank integer, seats integer, included numeric, refresh_per_day numeric, status text, starts_at timestamp with time zone, ends_at timestamp with time zone, interval_months integer, anchor timestamp with time zone, cancel_at_period_end boolean, effective_at timestamp with time zone, stripe_customer text, stripe_subscription text, at timestamp with time zone, cancel_at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.put_subscription(id text, owner text, plan text, plan_rank integer, seats integer, included numeric, refresh_per_day numeric, status text, starts_at timestamp with time zone, ends_at timestamp with time zone, interval_months integer, anchor timestamp with time zone, cancel_at_period_end boolean, effective_at timestamp with time zone, stripe_customer text, stripe_subscription text, at timestamp with time zone, cancel_at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.put_workspace(workspace text, payer text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.put_workspace(workspace text, payer text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.put_workspace(workspace text, payer text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.rebuild(the_entity bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.recomputed(the_entity bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.recomputed(the_entity bigint) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.recomputed(the_entity bigint) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.record_cumulative(request text, actor text, total numeric, source text, description text, category text, occurred_at timestamp with time zone, workspace text, workflow text, execution text, source_reference text, metadata jsonb, entity text, payer_id bigint, payer_name text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.record_cumulative(request text, actor text, total numeric, source text, description text, category text, occurred_at timestamp with time zone, workspace text, workflow text, execution text, source_reference text, metadata jsonb, entity text, payer_id bigint, payer_name text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.record_cumulative(request text, actor text, total numeric, source text, description text, category text, occurred_at timestamp with time zone, workspace text, workflow text, execution text, source_reference text, metadata jsonb, entity text, payer_id bigint, payer_name text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.record_usage(keys uuid[], fingerprints uuid[], actors text[], sources text[], descriptions text[], amounts numeric[], categories text[], occurred_ats timestamp with time zone[], workspaces text[], workflows text[], executions text[], source_references text[], lines text[], metadatas jsonb[], entities text[], periods bigint[], payer_ids bigint[], payer_periods bigint[], payers text[], at timestamp with time zone, note_conflicts boolean, key_wait_ms integer) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.record_usage(keys uuid[], fingerprints uuid[], actors text[], sources text[], descriptions text[], amounts numeric[], categories text[], occurred_ats timestamp with time zone[], workspaces text[], workflows text[], executions text[], source_references text[], lines text[], metadatas jsonb[], entities text[], periods bigint[], payer_ids bigint[], payer_periods bigint[], payers text[], at timestamp with time zone, note_conflicts boolean, key_wait_ms integer) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.record_usage(keys uuid[], fingerprints uuid[], actors text[], sources text[], descriptions text[], amounts numeric[], categories text[], occurred_ats timestamp with time zone[], workspaces text[], workflows text[], executions text[], source_references text[], lines text[], metadatas jsonb[], entities text[], periods bigint[], payer_ids bigint[], payer_periods bigint[], payers text[], at timestamp with time zone, note_conflicts boolean, key_wait_ms integer) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.recorded_days(the_entity bigint, the_period bigint, is_closed boolean, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.recorded_days(the_entity bigint, the_period bigint, is_closed boolean, at timestamp with time zone) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.recorded_days(the_entity bigint, the_period bigint, is_closed boolean, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.redrive_delivery(the_id bigint, at timestamp with time zone, invoice_is_gone boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.redrive_delivery(the_id bigint, at timestamp with time zone, invoice_is_gone boolean) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.redrive_delivery(the_id bigint, at timestamp with time zone, invoice_is_gone boolean) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.refusal(actor text, occurred_at timestamp with time zone, workspace text, entity text, asked_period bigint, attributed bigint, called text, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.refuse_change() FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.remove_member(organization text, person text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.remove_member(organization text, person text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.remove_member(organization text, person text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.resolve(actor text, workspace text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.resolve(actor text, workspace text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.resolve(actor text, workspace text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.rollup_differences(the_entity bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.rollup_differences(the_entity bigint) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.rollup_differences(the_entity bigint) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.said_again(the_entity bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.said_again(the_entity bigint) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.said_again(the_entity bigint) TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.event_key TO meterbook_reader;
GRANT SELECT,INSERT ON TABLE meterbook.event_key TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.same_intent(k meterbook.event_key, fingerprint uuid, entity text, period bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.seal_history(the_entity bigint, the_period bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.seal_period(the_entity bigint, the_period bigint, baseline numeric, refresh numeric, effective numeric, overage numeric, given_back bigint, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.seats_paid(the_subscription text, starts_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.seats_paid(the_subscription text, starts_at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.seats_paid(the_subscription text, starts_at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.set_baseline(the_entity bigint, the_period bigint, amount numeric, days integer[], amounts numeric[], at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.set_baseline(the_entity bigint, the_period bigint, amount numeric, days integer[], amounts numeric[], at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.set_baseline(the_entity bigint, the_period bigint, amount numeric, days integer[], amounts numeric[], at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.set_block(the_entity bigint, reason text, reference text, blocked boolean, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.set_block(the_entity bigint, reason text, reference text, blocked boolean, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.set_block(the_entity bigint, reason text, reference text, blocked boolean, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.set_limit(the_entity bigint, stored numeric, by text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.set_limit(the_entity bigint, stored numeric, by text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.set_limit(the_entity bigint, stored numeric, by text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.set_member_cap(organization text, person text, cap numeric) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.set_member_cap(organization text, person text, cap numeric) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.set_member_cap(organization text, person text, cap numeric) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.set_seats(the_subscription text, the_seats integer, contracts text[], at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.set_seats(the_subscription text, the_seats integer, contracts text[], at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.set_seats(the_subscription text, the_seats integer, contracts text[], at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.settle_at_stripe(reference text, outcome text, settled_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.settle_at_stripe(reference text, outcome text, settled_at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.settle_at_stripe(reference text, outcome text, settled_at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.settle_due(actors bigint[], at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.settle_payers(actors bigint[], at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.settled() FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.settled() TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.settled() TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.settled() TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.standing(s meterbook.subscription) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.standing(s meterbook.subscription) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.standing(s meterbook.subscription) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.step_of(anchor timestamp with time zone, months integer, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.store_stripe_event(the_id text, the_type text, subject text, created_at timestamp with time zone, body text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.store_stripe_event(the_id text, the_type text, subject text, created_at timestamp with time zone, body text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.store_stripe_event(the_id text, the_type text, subject text, created_at timestamp with time zone, body text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.stripe_event_body(the_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.stripe_event_body(the_id text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.stripe_event_body(the_id text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.stripe_events(the_state text, rows_max integer) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.stripe_events(the_state text, rows_max integer) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.stripe_events(the_state text, rows_max integer) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.sum_departed(the_entity bigint, the_period bigint, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.sum_held(the_entity bigint, the_period bigint, person text, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.sum_period(the_entity bigint, the_period bigint, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.take_back_cancellations(actors bigint[], at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.tell_cancellation(owner_id bigint, subscription_id text, cancels boolean, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.tell_cancellation_again(the_subscription text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.tell_cancellation_again(the_subscription text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.tell_cancellation_again(the_subscription text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.tell_proration(the_entity bigint, invoice text, cents bigint, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.tell_proration(the_entity bigint, invoice text, cents bigint, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.tell_proration(the_entity bigint, invoice text, cents bigint, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.term_end(s meterbook.subscription, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.transfer_ownership(organization text, person text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.transfer_ownership(organization text, person text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.transfer_ownership(organization text, person text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.unanswered(keys uuid[], fingerprints uuid[], entities text[], periods bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.unfence_period(the_entity bigint, the_period bigint, reason text, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.unfence_period(the_entity bigint, the_period bigint, reason text, at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.unfence_period(the_entity bigint, the_period bigint, reason text, at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.unprovable(the_entity bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.unprovable(the_entity bigint) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.unprovable(the_entity bigint) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.unsettled_stripe_events() FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.unsettled_stripe_events() TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.unsettled_stripe_events() TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.usage_terms(the_entity bigint, the_period bigint, at timestamp with time zone, grains text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.usage_terms(the_entity bigint, the_period bigint, at timestamp with time zone, grains text[]) TO meterbook_reader;
GRANT ALL ON FUNCTION meterbook.usage_terms(the_entity bigint, the_period bigint, at timestamp with time zone, grains text[]) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.user_is_known(person text) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.user_is_known(person text) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.user_is_known(person text) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.window_of(s meterbook.subscription, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.without_home(deltas tid[], at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.write_at_home(keys uuid[], fingerprints uuid[], actors text[], sources text[], descriptions text[], amounts numeric[], categories text[], workflows text[], executions text[], source_references text[], lines text[], metadatas jsonb[], moment timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.write_charge(the_entity bigint, the_period bigint, the_kind text, charged bigint, credits bigint, written_off bigint, overage numeric, grant_ids bigint[], grant_cents bigint[], at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.write_charge(the_entity bigint, the_period bigint, the_kind text, charged bigint, credits bigint, written_off bigint, overage numeric, grant_ids bigint[], grant_cents bigint[], at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.write_charge(the_entity bigint, the_period bigint, the_kind text, charged bigint, credits bigint, written_off bigint, overage numeric, grant_ids bigint[], grant_cents bigint[], at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.write_holds(the_entity bigint, hold_keys text[], actor_ids bigint[], workspaces text[], amounts numeric[], ttls integer[], at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION meterbook.write_holds(the_entity bigint, hold_keys text[], actor_ids bigint[], workspaces text[], amounts numeric[], ttls integer[], at timestamp with time zone) TO meterbook_writer;
GRANT ALL ON FUNCTION meterbook.write_holds(the_entity bigint, hold_keys text[], actor_ids bigint[], workspaces text[], amounts numeric[], ttls integer[], at timestamp with time zone) TO meterbook_importer;

REVOKE ALL ON FUNCTION meterbook.write_many(keys uuid[], fingerprints uuid[], actors text[], sources text[], descriptions text[], amounts numeric[], categories text[], occurred_ats timestamp with time zone[], workspaces text[], workflows text[], executions text[], source_references text[], lines text[], metadatas jsonb[], entities text[], periods bigint[], payer_ids bigint[], payer_periods bigint[], payers text[], moment timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION meterbook.write_one(key uuid, fingerprint uuid, actor text, source text, description text, amount numeric, category text, occurred_at timestamp with time zone, workspace text, workflow text, execution text, source_reference text, line text, metadata jsonb, entity text, period bigint, payer_id bigint, payer_period bigint, payer_name text, moment timestamp with time zone) FROM PUBLIC;

GRANT SELECT ON TABLE meterbook.act_detail TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.act_detail TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.act_log TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.act_log TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.act_outcome TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.act_outcome TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.actor TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.actor TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.alert_mark TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.alert_mark TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.billing_period TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.billing_period TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.charge TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.charge TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.correction TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.correction TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.credit_grant TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.credit_grant TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.credit_spend TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.credit_spend TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.cumulative_request TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.cumulative_request TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.cumulative_rise TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.cumulative_rise TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.cutover TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.cutover TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.cutover_counter TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.cutover_counter TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.cutover_entity TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.cutover_entity TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.cutover_fall TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.cutover_fall TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.cutover_mirror TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.cutover_mirror TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.cutover_refusal TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.cutover_refusal TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.cutover_return TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.cutover_return TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.cutover_row TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.cutover_row TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.deferred_close TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.deferred_close TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.entity_block TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.entity_block TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.entity_limit TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.entity_limit TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.entry_correction TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.entry_correction TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.entry_metadata TO meterbook_reader;
GRANT SELECT,INSERT ON TABLE meterbook.entry_metadata TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.hold_end TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.hold_end TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.hold_gate TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.hold_gate TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.key_conflict TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.key_conflict TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.late_entry TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.late_entry TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.ledger TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.ledger TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.member TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.member TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.member_cap TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.member_cap TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.migration TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.migration TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.moved_entity TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.moved_entity TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.organization TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.organization TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.outbox TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.outbox TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.outbox_delivery TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.outbox_delivery TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.period_baseline TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.period_baseline TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.period_baseline_day TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.period_baseline_day TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.sealed_actor TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.sealed_actor TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.sealed_period TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.sealed_period TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.shadowed_entity TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.shadowed_entity TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.stripe_event TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.stripe_event TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.stripe_settled TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.stripe_settled TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.stripe_subscription TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.stripe_subscription TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.subscription_segment TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.subscription_segment TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.usage_delta TO meterbook_reader;
GRANT SELECT,INSERT ON TABLE meterbook.usage_delta TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.usage_log TO meterbook_reader;
GRANT SELECT,INSERT ON TABLE meterbook.usage_log TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.usage_log_default TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.usage_log_default TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.usage_rollup TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.usage_rollup TO meterbook_importer;

GRANT SELECT ON TABLE meterbook.workspace TO meterbook_reader;
GRANT SELECT ON TABLE meterbook.workspace TO meterbook_importer;
