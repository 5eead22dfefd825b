-- Recording usage: BEHAVIOUR §2, §3, I8. A recorder reads customers, periods and keys and locks none of them; what it writes is new rows only.
-- It waits for nobody but an earlier writer of the same key.

create function meterbook.digest_field(field text) returns text
language sql immutable parallel safe as $$
  -- Length-prefixed, so that no crafted text runs into its neighbour; null is unlike every text.
  select case when field is null then '-' else octet_length(field) || ':' || field end || ','
$$;

create function meterbook.event_key(event_key text) returns uuid
language plpgsql immutable parallel safe strict as $$
-- The stored key of a caller's event_key: the first 16 bytes of SHA-256 of its canonical encoding.
begin
  if length(event_key) not between 1 and 512 then
    raise exception using errcode = 'MB050', message = format('an event_key has 1 to 512 characters, this one %s', length(event_key)),
      hint = 'Name the intent to charge: the run, the step, the model.';
  end if;
  return encode(substr(sha256(convert_to('meterbook.event_key.1,' || meterbook.digest_field(event_key), 'UTF8')), 1, 16), 'hex')::uuid;
end $$;

create function meterbook.fingerprint(actor text, category text, source text, description text, amount numeric, currency text default 'USD')
returns uuid language sql immutable parallel safe strict as $$
  -- What the first writer of a key said, amount by value (1.0 = 1.00).
  select encode(substr(sha256(convert_to('meterbook.fingerprint.1,' || meterbook.digest_field(actor) || meterbook.digest_field(category)
    || meterbook.digest_field(source) || meterbook.digest_field(description) || meterbook.digest_field(trim_scale(amount)::text)
    || meterbook.digest_field(currency), 'UTF8')), 1, 16), 'hex')::uuid
$$;

create function meterbook.key_weight(key uuid) returns bigint
language sql immutable parallel safe strict as $$
  -- The first 32 bits of a key: Σ weight × amount is a digest that adds up, is the same in every language, and misses a change of the
  -- ledger with a probability of 2⁻³².
  select ('x' || encode(substr(uuid_send(key), 1, 4), 'hex'))::bit(32)::bigint
$$;

create type meterbook.recorded as (
  n integer, key uuid, outcome text, entity text, period bigint, belongs_to bigint, amount numeric, recorded_at timestamptz);
comment on type meterbook.recorded is
  'One answer an entry, n from 1. inserted | replayed | conflict | unattributed (call attribute, with the entity if the answer names one, then again) | in_progress (again later) | '
  'not_written (nothing wrong with it, but the call was refused) | unknown_workspace | unknown_entity | attribution_disagrees | '
  'period_of_another_payer | occurred_in_the_future | invalid_actor.';

create function meterbook.record_usage(
  keys uuid[], fingerprints uuid[], actors text[], sources text[], descriptions text[], amounts numeric[],
  categories text[] default null, occurred_ats timestamptz[] default null, workspaces text[] default null, workflows text[] default null,
  executions text[] default null, source_references text[] default null, lines text[] default null, metadatas jsonb[] default null,
  entities text[] default null, periods bigint[] default null,
  payer_ids bigint[] default null, payer_periods bigint[] default null, payers text[] default null,
  at timestamptz default null, note_conflicts boolean default true, key_wait_ms integer default 5000)
returns setof meterbook.recorded
language plpgsql security definer
set search_path = meterbook, pg_temp set plan_cache_mode = force_generic_plan set lock_timeout = '5s' set jit = off as $$
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
    perform set_config('lock_timeout', key_wait_ms || 'ms', true);    -- until the function ends
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

create function meterbook.write_one(
  key uuid, fingerprint uuid, actor text, source text, description text, amount numeric, category text, occurred_at timestamptz, workspace text,
  workflow text, execution text, source_reference text, line text, metadata jsonb, entity text, period bigint, payer_id bigint,
  payer_period bigint, payer_name text, moment timestamptz) returns meterbook.recorded[]
language plpgsql as $$
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

create function meterbook.write_at_home(
  keys uuid[], fingerprints uuid[], actors text[], sources text[], descriptions text[], amounts numeric[], categories text[], workflows text[],
  executions text[], source_references text[], lines text[], metadatas jsonb[], moment timestamptz) returns meterbook.recorded[]
language plpgsql set enable_nestloop = off as $$
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

create function meterbook.write_many(
  keys uuid[], fingerprints uuid[], actors text[], sources text[], descriptions text[], amounts numeric[], categories text[],
  occurred_ats timestamptz[], workspaces text[], workflows text[], executions text[], source_references text[], lines text[], metadatas jsonb[],
  entities text[], periods bigint[], payer_ids bigint[], payer_periods bigint[], payers text[], moment timestamptz) returns meterbook.recorded[]
language plpgsql set enable_nestloop = off as $$
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

create function meterbook.goes_by(e meterbook.billing_entity, name text) returns boolean
language sql immutable as $$
  -- Whether an attribution calls its payer by its name. One that was erased since has none any more, and pays all the same.
  select e.kind = split_part(name, ':', 1) and (e.external_id is null or e.external_id = substr(name, strpos(name, ':') + 1))
$$;

create function meterbook.payer_of_entry(named text, attributed bigint, workspace text, actor_payer bigint, actor_payer_until timestamptz, at timestamptz,
                                         called text default null)
returns table (id bigint, name text, home_id bigint, home_since timestamptz, home_starts_at timestamptz, home_ends_at timestamptz)
language sql stable as $$
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

create function meterbook.goes_home(asked bigint, happened timestamptz, home_since timestamptz) returns boolean
language sql immutable as $$
  -- An entry of the running period needs no search for its period. By its own time alone: another's clock may already have opened the next.
  select asked is null and happened >= home_since
$$;

create function meterbook.same_intent(k meterbook.event_key, fingerprint uuid, entity text, period bigint) returns boolean
language sql stable as $$
  -- A retry says what the first writer said; an entity or period that it names must be the first one's too (of a late entry: the closed period).
  select k.fingerprint = fingerprint
     and (entity is null or coalesce(k.entity_id = meterbook.entity_id_of(entity), false))
     and (period is null or period = coalesce(k.belongs_to, k.period_id))
$$;

create function meterbook.unanswered(keys uuid[], fingerprints uuid[], entities text[], periods bigint[])
returns table (key uuid)
language sql stable as $$
  -- Keys of a call that are neither written nor replayed.
  select u.key from unnest(keys, fingerprints, entities, periods) u(key, fingerprint, entity, period)
  where not exists (select from meterbook.event_key k where k.key = u.key and meterbook.same_intent(k, u.fingerprint, u.entity, u.period))
$$;

create function meterbook.clashes_within(written meterbook.recorded[], keys uuid[], fingerprints uuid[], entities text[], periods bigint[]) returns integer[]
language sql stable as $$
  -- Positions whose key was written by this very call, for something else: the same key twice in one call is treated as in two.
  select coalesce(array_agg(u.n::integer), '{}') from unnest(keys, fingerprints, entities, periods) with ordinality u(key, fingerprint, entity, period, n)
  join unnest(written) w on w.key = u.key and w.n <> u.n
  join meterbook.event_key k on k.key = u.key
  where not meterbook.same_intent(k, u.fingerprint, u.entity, u.period)
$$;

create function meterbook.refusal(actor text, occurred_at timestamptz, workspace text, entity text, asked_period bigint, attributed bigint, called text, at timestamptz)
returns text
language plpgsql stable as $$
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
end $$;

create function meterbook.answer(
  keys uuid[], fingerprints uuid[], actors text[], amounts numeric[], occurred_ats timestamptz[], workspaces text[], entities text[],
  periods bigint[], payer_ids bigint[], payer_periods bigint[], payers text[], at timestamptz)
returns setof meterbook.recorded
language sql stable as $$
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

create function meterbook.note_conflicts(
  keys uuid[], fingerprints uuid[], actors text[], categories text[], sources text[], descriptions text[], amounts numeric[],
  entities text[] default null, periods bigint[] default null, at timestamptz default null) returns bigint
language plpgsql security definer set search_path = meterbook, pg_temp as $$
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

create function meterbook.first_said(keys uuid[])
returns table (key uuid, actor text, category text, source text, description text, amount numeric, entity text, period bigint, corrects uuid)
language sql stable security definer set search_path = meterbook, pg_temp as $$
  -- What the first writers of these keys said.
  select k.key, coalesce(a.external_id, '#' || l.actor_id), l.category, l.source, l.description, l.amount,
         e.kind || ':' || coalesce(e.external_id, '#' || e.id), coalesce(k.belongs_to, k.period_id), l.corrects
  from meterbook.event_key k
  join meterbook.usage_log l on l.entity_id = k.entity_id and l.recorded_at = k.recorded_at and l.key = k.key
  join meterbook.actor a on a.id = l.actor_id
  join meterbook.billing_entity e on e.id = k.entity_id
  where k.key = any (keys)
$$;

create function meterbook.resolve(actor text, workspace text default null, at timestamptz default null)
returns table (outcome text, entity text, entity_id bigint, period_id bigint)
language plpgsql stable security definer set search_path = meterbook, pg_temp as $$
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

create function meterbook.parties_of(actors text[], workspaces text[], entities text[], payer_ids bigint[], at timestamptz default null)
returns table (n integer, actor_id bigint, entity_id bigint, home_id bigint, home_since timestamptz, home_starts_at timestamptz,
               home_ends_at timestamptz, moment timestamptz)
language plpgsql stable security definer set search_path = meterbook, pg_temp as $$
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
