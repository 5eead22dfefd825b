-- Corrections and running totals (BEHAVIOUR §3.6, §3.7). Lock order: billing_period → cumulative_request → event_key → entry_correction.

create function meterbook.correction_fingerprint(entry uuid, amount numeric, currency text default 'USD') returns uuid
language sql immutable parallel safe strict as $$
  select encode(substr(sha256(convert_to('meterbook.correction.1,' || meterbook.digest_field(entry::text)
    || meterbook.digest_field(trim_scale(amount)::text) || meterbook.digest_field(currency), 'UTF8')), 1, 16), 'hex')::uuid
$$;

create function meterbook.correct_entry(entry uuid, amount numeric, reason text, key uuid, at timestamptz default null)
returns meterbook.recorded
language plpgsql security definer
set search_path = meterbook, pg_temp set plan_cache_mode = force_generic_plan set lock_timeout = '5s' set jit = off as $$
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

create function meterbook.first_flush(request text)
returns table (actor text, category text, source text, description text, total numeric, entity text, workspace text)
language sql stable security definer set search_path = meterbook, pg_temp as $$
  -- What a running total is bound to, and how far it has come.
  select coalesce(a.external_id, '#' || a.id), r.category, r.source, r.description, r.total, e.kind || ':' || coalesce(e.external_id, '#' || e.id), r.workspace
  from meterbook.cumulative_request r join meterbook.actor a on a.id = r.actor_id join meterbook.billing_entity e on e.id = r.entity_id
  where r.request = encode(substr(sha256(convert_to('meterbook.request.1,' || meterbook.digest_field(first_flush.request), 'UTF8')), 1, 16), 'hex')::uuid
$$;

create function meterbook.record_cumulative(
  request text, actor text, total numeric, source text, description text, category text default null, occurred_at timestamptz default null,
  workspace text default null, workflow text default null, execution text default null, source_reference text default null,
  metadata jsonb default null, entity text default null, payer_id bigint default null, payer_name text default null, at timestamptz default null)
returns setof meterbook.recorded
language plpgsql security definer
set search_path = meterbook, pg_temp set plan_cache_mode = force_generic_plan set lock_timeout = '5s' set jit = off as $$
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
