-- Who pays, and for which period: BEHAVIOUR §4, §3.8, §10 (the clock opens periods). Decided here, under one snapshot, so that every
-- language gets the same answer. Lock order: organization → member → actor → subscription → billing_period → period_clock.

-- An attribution that can't be decided is an outcome, never a default (I4).

create function meterbook.person(external_id text) returns bigint
language plpgsql as $$
-- The surrogates of a user: as one who acts and as one who can pay. Gives the actor's.
#variable_conflict use_column
declare found_id bigint;
begin
  insert into meterbook.billing_entity (kind, external_id) values ('user', person.external_id) on conflict do nothing;
  insert into meterbook.actor (external_id) values (person.external_id) on conflict do nothing;
  select a.id into found_id from meterbook.actor a where a.external_id = person.external_id;
  return found_id;
end $$;

create function meterbook.entity_id_of(entity text) returns bigint
language sql stable as $$
  -- The surrogate of "user:<id>" or "organization:<id>", or of one that was erased, as our answers name it: "user:#<surrogate>". Null if it was
  -- never heard of.
  select coalesce(
    (select e.id from meterbook.billing_entity e
     where e.kind = split_part(entity, ':', 1) and e.external_id = substr(entity, strpos(entity, ':') + 1)),
    (select e.id from meterbook.billing_entity e
     where e.id = case when entity ~ '^[a-z]+:#[0-9]{1,18}$' then split_part(entity, '#', 2)::bigint end
       and e.kind = split_part(entity, ':', 1) and e.external_id is null))
$$;

create function meterbook.payer_of(the_actor bigint, at timestamptz)
returns table (entity_id bigint, until timestamptz)
language sql stable as $$
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

create function meterbook.standing(s meterbook.subscription) returns numeric[]
language sql immutable as $$
  -- Of an owner's subscriptions the one with the greatest standing pays, then the one with the least id: plan, included (none: no bound), start.
  select array[s.plan_rank, coalesce(s.included, 1e12), extract(epoch from s.begins_at)]
$$;

create function meterbook.decide_payers(actors bigint[], at timestamptz) returns void
language plpgsql as $$
-- Writes down who pays for each actor. The rows are locked in a statement of their own: the next one's snapshot is then younger than
-- every change that held them.
begin
  perform from meterbook.actor a where a.id = any (actors) order by a.id for no key update;
  update meterbook.actor a set payer_id = p.entity_id, payer_until = p.until
  from unnest(actors) as wanted(id) cross join lateral meterbook.payer_of(wanted.id, at) p
  where a.id = wanted.id and (a.payer_id, a.payer_until) is distinct from (p.entity_id, p.until);
end $$;

create function meterbook.settle_payers(actors bigint[], at timestamptz) returns void
language plpgsql as $$
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

create function meterbook.actors_of(entities bigint[]) returns bigint[]
language sql stable as $$
  -- The users among these entities, as actors.
  select coalesce(array_agg(a.id order by a.id), '{}') from meterbook.billing_entity e join meterbook.actor a on a.external_id = e.external_id
  where e.id = any (entities) and e.kind = 'user'
$$;

create function meterbook.settle_due(actors bigint[], at timestamptz) returns void
language plpgsql as $$
-- What the clock has changed comes before what is said now, and before periods are opened: what an organization's end takes back keeps the own
-- periods going, which else would have ended.
declare due bigint[] := array(select a.id from meterbook.actor a where a.id = any (actors) and (a.payer_id is null or a.payer_until <= at) order by a.id);
begin
  if due <> '{}' then
    perform meterbook.settle_payers(due, at);
  end if;
end $$;

create function meterbook.lock_members_of(entities bigint[], joining bigint[] default '{}') returns bigint[]
language plpgsql as $$
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

-- ------------------------------------------------------------------------------------------------------------------------ periods

create function meterbook.months_after(anchor timestamptz, months integer) returns timestamptz
language sql immutable as $$
  -- Counted from the original anchor, so that 31 January → 28 February → 31 March.
  select ((anchor at time zone 'UTC') + make_interval(months => months)) at time zone 'UTC'
$$;

create function meterbook.step_of(anchor timestamptz, months integer, at timestamptz) returns integer
language plpgsql immutable as $$
-- The n for which anchor + n·months <= at < anchor + (n + 1)·months.
declare n integer;
begin
  n := floor(((extract(year from at at time zone 'UTC') - extract(year from anchor at time zone 'UTC')) * 12
            + extract(month from at at time zone 'UTC') - extract(month from anchor at time zone 'UTC')) / months);
  while meterbook.months_after(anchor, n * months) > at loop n := n - 1; end loop;
  while meterbook.months_after(anchor, (n + 1) * months) <= at loop n := n + 1; end loop;
  return n;
end $$;

create function meterbook.term_end(s meterbook.subscription, at timestamptz) returns timestamptz
language sql immutable as $$
  -- The end of the interval that is paid for at `at`: as reported, and from then on by the anchor.
  select case when at < s.ends_at then s.ends_at
              else meterbook.months_after(s.anchor, (meterbook.step_of(s.anchor, s.interval_months, at) + 1) * s.interval_months) end
$$;

create function meterbook.window_of(s meterbook.subscription, at timestamptz)
returns table (starts_at timestamptz, ends_at timestamptz)
language plpgsql immutable as $$
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

create function meterbook.open_free_period(the_entity bigint, at timestamptz) returns timestamptz
language plpgsql set timezone = 'UTC' as $$
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

create function meterbook.open_windows(s meterbook.subscription, at timestamptz) returns timestamptz
language plpgsql as $$
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

create function meterbook.open_periods(entities bigint[], at timestamptz) returns void
language plpgsql as $$
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

create function meterbook.attribute(actors text[], entities text[] default '{}', workspaces text[] default '{}', at timestamptz default null,
                                    lock_wait_ms integer default 2000)
returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '2s' set jit = off as $$
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
end $$;

create function meterbook.place(the_entity bigint, asked bigint, occurred timestamptz, at timestamptz)
returns table (period_id bigint, belongs_to bigint, starts_at timestamptz, ends_at timestamptz)
language sql stable as $$
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

create function meterbook.home_at(c meterbook.period_clock, at timestamptz) returns bigint
language sql stable as $$
  -- The period of now. Somebody whose clock is ahead may have opened the next one already: for the others it has not begun.
  select case when c.home_starts_at <= at then c.home_id else (select p.period_id from meterbook.place(c.entity_id, null, at, at) p) end
$$;

create function meterbook.day_in(occurred timestamptz, starts timestamptz, ends timestamptz) returns integer
language sql immutable as $$
  -- Buckets of 24 hours from the period's start, clamped into the period. Written with immutable operators only (timestamptz - interval is
  -- not), so that it is inlined: called, it is a tenth of a batch.
  select floor(extract(epoch from least(greatest(occurred, starts) - starts, ends - starts - interval '1 microsecond')) / 86400)::integer
$$;
