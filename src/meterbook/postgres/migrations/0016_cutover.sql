-- From counters to the ledger (BEHAVIOUR §13): what was taken over of whom, and how far. Their tables are read and never locked; a counter that
-- moves afterwards is late usage, so nobody has to stop writing it.

create table meterbook.cutover (
  id       smallint primary key default 1 constraint cutover_is_one_row check (id = 1),
  mapping  text not null,
  feed     text not null constraint cutover_feed_is_known check (feed in ('audit', 'application')),
  is_whole boolean not null default false,
  began_at timestamptz not null
);
comment on column meterbook.cutover.is_whole is 'Whether the last round of shadow came to its end: until it does, nobody knows whose counters are missing.';
comment on column meterbook.cutover.mapping is 'Digest of the mapping that all steps use.';
comment on column meterbook.cutover.feed is 'Who records usage while counters still count: the cutover, from the audit log, or the application, under the keys legacy:<audit id>.';

create table meterbook.cutover_mirror (
  kind   text not null,
  id     text not null,
  digest text not null,
  primary key (kind, id)
);
comment on table meterbook.cutover_mirror is 'Their subscriptions, organizations and members as they were when they were last told to this ledger.';

create table meterbook.cutover_refusal (
  subject  text primary key,
  reason   text not null,
  noted_at timestamptz not null
);
comment on table meterbook.cutover_refusal is 'What could not be taken over, and why; it is tried again at every round.';

create table meterbook.cutover_entity (
  entity_id    bigint primary key,
  state        text not null constraint cutover_entity_state_is_known check (state in ('shadow', 'switched', 'retired', 'rolled_back')),
  period_id    bigint not null,
  began_at     timestamptz not null,
  difference   numeric not null default 0,
  agreed_since timestamptz,
  switched_at  timestamptz,
  billed       numeric,
  credits      numeric,
  note         text not null default ''
);
comment on column meterbook.cutover_entity.billed is 'What the product had billed of its running period when that was last read; null: not since the switch.';
comment on column meterbook.cutover_entity.difference is 'Counters less what the ledger makes of them, when it was last looked at.';

create table meterbook.cutover_counter (
  name        text primary key,
  kind        text not null constraint cutover_counter_kind_is_known check (kind in ('running', 'kept', 'departed')),
  owner       text not null,
  entity_id   bigint not null,
  period_id   bigint not null,
  epoch       integer not null default 1,
  base        numeric not null,
  held        numeric not null,
  seen        numeric not null,
  seen_last   numeric not null,
  moved       numeric not null default 0,
  absorbed    numeric not null default 0,
  absorptions integer not null default 0,
  fall_id     bigint not null default 0,
  is_over     boolean not null default false,
  moved_at    timestamptz,
  looked_at   timestamptz not null,
  note        text not null default ''
);
create index cutover_counter_of_entity on meterbook.cutover_counter (entity_id);
comment on table meterbook.cutover_counter is
  'One counter of theirs: running and kept ones are a user''s, departed ones an organization''s. Until the switch: seen = base + held + Σ its rows. '
  'From then on: moved = Σ its rows + absorbed.';
comment on column meterbook.cutover_counter.base is 'Its part of the baseline.';
comment on column meterbook.cutover_counter.held is 'What the ledger had of it before this epoch began.';
comment on column meterbook.cutover_counter.is_over is 'Of an entity that was rolled back: it has to begin again, whatever has become of its entity meanwhile.';
comment on column meterbook.cutover_counter.moved is 'By how much it has risen since the switch.';

create table meterbook.cutover_fall (
  id     bigint generated always as identity primary key,
  owner  text not null,
  was    numeric not null,
  is_now numeric not null
);
create index cutover_fall_of_owner on meterbook.cutover_fall (owner, id);
comment on table meterbook.cutover_fall is
  'Each time that a counter fell, where the trigger stands: from what to what. Between two of them it only rises, so what it rose by is known to the last digit, '
  'however often it is looked at. The ids of one owner follow its row''s locks.';

create table meterbook.cutover_return (
  entity_id bigint not null,
  user_id   text not null,
  amount    numeric not null,
  primary key (entity_id, user_id)
);
comment on table meterbook.cutover_return is 'What rollbacks have given back to whose counter, since the entity was last compared: doing it again gives back the rest.';

create table meterbook.cutover_row (
  audit_id    text primary key,
  counter     text not null,
  epoch       integer not null,
  amount      numeric not null,
  day         integer,
  is_held     boolean not null default false,
  is_switched boolean not null default false,
  refused     text
);
create index cutover_row_of_counter on meterbook.cutover_row (counter, epoch);
comment on table meterbook.cutover_row is
  'Rows of the audit log that the ledger has under their own keys; amount 0: in the baseline, held, or refused. is_held: the ledger had it before its epoch '
  'began. is_switched: recorded by a writer of both after the switch.';

create function meterbook.note_fall() returns trigger
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- On the counters of a product, while it is migrated. Arguments: the columns of the user and of the counter. A row that is gone is a counter of 0.
declare
  before  jsonb := to_jsonb(old);
  present jsonb := case when tg_op = 'UPDATE' then to_jsonb(new) end;
begin
  insert into meterbook.cutover_fall (owner, was, is_now)
  values (before ->> tg_argv[0], coalesce((before ->> tg_argv[1])::numeric, 0), coalesce((present ->> tg_argv[1])::numeric, 0));
  return null;
end $$;

create function meterbook.sum_held(the_entity bigint, the_period bigint, person text, at timestamptz) returns numeric
language sql stable as $$
  -- What the ledger has of one actor in a period.
  select coalesce((select sum(r.amount) from meterbook.usage_rollup r
                   where r.entity_id = the_entity and r.period_id = the_period and r.grain = 'actor' and r.part = a.id::text and r.detail = ''), 0)
       + coalesce((select sum(d.amount) from meterbook.pending_of(the_entity, the_period, sum_held.at) d where d.actor_id = a.id), 0)
  from meterbook.actor a where a.external_id = person
$$;

create function meterbook.sum_departed(the_entity bigint, the_period bigint, at timestamptz) returns numeric
language sql stable as $$
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

create function meterbook.sum_period(the_entity bigint, the_period bigint, at timestamptz) returns numeric
language sql stable as $$
  -- Baseline and ledger of a period.
  select coalesce((select b.amount from meterbook.period_baseline b where b.entity_id = the_entity and b.period_id = the_period), 0)
       + coalesce((select sum(r.amount) from meterbook.usage_rollup r
                   where r.entity_id = the_entity and r.period_id = the_period and r.grain = 'total' and r.part = '' and r.detail = ''), 0)
       + coalesce((select sum(d.amount) from meterbook.pending_of(the_entity, the_period, sum_period.at) d), 0)
$$;

create function meterbook.leave_to_history(the_entity bigint, the_period bigint) returns void
language plpgsql as $$
-- A period that ended while its counters still counted: they billed it, so it becomes history (BEHAVIOUR §13).
begin
  perform meterbook.lock_period(the_entity, the_period);
  perform meterbook.fold_period(the_entity, the_period);
  update meterbook.billing_period p set kind = 'history' where p.entity_id = the_entity and p.id = the_period and p.kind = 'dated' and p.state = 'open';
  if found then
    perform meterbook.seal_history(the_entity, the_period);
  end if;
end $$;

create function meterbook.seal_history(the_entity bigint, the_period bigint) returns void
language plpgsql as $$
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

create function meterbook.import_history(
  entity text, starts timestamptz, ends timestamptz, keys uuid[], fingerprints uuid[], actors text[], amounts numeric[], categories text[], sources text[],
  descriptions text[], workflows text[], executions text[], occurred_ats timestamptz[], at timestamptz) returns bigint
language plpgsql as $$
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

create function meterbook.carry_billed(the_entity bigint, the_period bigint, cents bigint, spent bigint, at timestamptz) returns bigint
language plpgsql as $$
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

revoke all on all functions in schema meterbook from public;
grant select on meterbook.cutover, meterbook.cutover_mirror, meterbook.cutover_refusal, meterbook.cutover_entity, meterbook.cutover_counter, meterbook.cutover_row,
  meterbook.cutover_fall, meterbook.cutover_return
  to meterbook_reader, meterbook_importer;
