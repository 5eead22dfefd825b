-- What Stripe tells by webhooks (BEHAVIOUR §11): each event is kept as it came and applied once, in one transaction with its effect; and what must be
-- remembered of those applied, so that the order in which they arrive changes nothing. Lock order: stripe_event → stripe_subscription → the customers'.

create table meterbook.stripe_event (
  id          text primary key,
  type        text not null,
  subject     text not null,
  created_at  timestamptz not null,
  received_at timestamptz not null,
  body        text not null,
  state       text not null default 'pending' constraint stripe_event_state_is_known check (state in ('pending', 'applied', 'ignored', 'stale', 'failed')),
  attempts    integer not null default 0,
  note        text,
  settled_at  timestamptz,
  constraint stripe_event_settled_at_its_end check ((state in ('applied', 'ignored', 'stale')) = (settled_at is not null))
);
create index stripe_event_waiting on meterbook.stripe_event (created_at, id) where state in ('pending', 'failed');
create index stripe_event_by_time on meterbook.stripe_event (received_at);
comment on table meterbook.stripe_event is 'Events as Stripe sent them. stale: older than what was known; pending: it never came to an end; failed: note says why, and it can be replayed.';
comment on column meterbook.stripe_event.subject is 'The id of the object that the event is about.';

create table meterbook.stripe_subscription (
  id                 text primary key,
  seen_at            timestamptz,
  seen_rank          smallint not null default 0,
  seen_event         text not null default '',
  owner_said         text,
  monthly_price      numeric,
  invoiced_starts_at timestamptz,
  invoiced_ends_at   timestamptz
);
comment on table meterbook.stripe_subscription is 'The newest event applied of each subscription at Stripe, by Stripe''s own time, and what its metadata and invoices said last.';

create table meterbook.stripe_settled (
  reference  text primary key,
  outcome    text not null,
  settled_at timestamptz not null
);
comment on table meterbook.stripe_settled is 'Invoices and disputes that block nobody any more, also when the event that would block arrives later.';

create index subscription_of_stripe on meterbook.subscription (stripe_subscription);
create index subscription_of_customer on meterbook.subscription (stripe_customer);
create index outbox_cancellations on meterbook.outbox ((payload ->> 'subscription')) where kind = 'cancel_at_period_end';

-- ------------------------------------------------------------------------------------------------------------------------ events

create function meterbook.store_stripe_event(the_id text, the_type text, subject text, created_at timestamptz, body text, at timestamptz default null)
returns text
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- Kept as it came, once. Gives the state it has.
#variable_conflict use_variable
declare moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
begin
  insert into meterbook.stripe_event (id, type, subject, created_at, received_at, body)
  values (the_id, the_type, subject, created_at, moment, body) on conflict do nothing;
  return (select e.state from meterbook.stripe_event e where e.id = the_id);
end $$;

create function meterbook.lock_stripe_event(the_id text) returns text
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- One at a time applies an event; gives its state.
declare found_state text;
begin
  select e.state into found_state from meterbook.stripe_event e where e.id = the_id for update;
  return found_state;
end $$;

create function meterbook.finish_stripe_event(the_id text, the_state text, the_note text, at timestamptz default null) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- What came of it. One that has been applied can't fail any more.
declare moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
begin
  update meterbook.stripe_event e set state = the_state, note = the_note, attempts = e.attempts + 1,
    settled_at = case when the_state <> 'failed' then moment end
  where e.id = the_id and e.settled_at is null;
end $$;

create function meterbook.stripe_event_body(the_id text) returns text
language sql stable security definer set search_path = meterbook, pg_temp as $$
  select e.body from meterbook.stripe_event e where e.id = the_id
$$;

create function meterbook.stripe_events(the_state text, rows_max integer)
returns table (id text, type text, subject text, created_at timestamptz, received_at timestamptz, state text, attempts integer, note text, settled_at timestamptz)
language sql stable security definer set search_path = meterbook, pg_temp as $$
  -- Newest first.
  select e.id, e.type, e.subject, e.created_at, e.received_at, e.state, e.attempts, e.note, e.settled_at
  from meterbook.stripe_event e where the_state is null or e.state = the_state order by e.received_at desc, e.created_at desc, e.id desc limit rows_max
$$;

create function meterbook.unsettled_stripe_events() returns text[]
language sql stable security definer set search_path = meterbook, pg_temp as $$
  -- In Stripe's order.
  select coalesce(array_agg(e.id order by e.created_at, e.id), '{}') from meterbook.stripe_event e where e.state in ('pending', 'failed')
$$;

create function meterbook.erase_stripe_event(the_id text) returns void
language sql security definer set search_path = meterbook, pg_temp as $$
  -- What Stripe wrote of a person who was deleted: the event stays, as one that was settled, and says nothing any more.
  update meterbook.stripe_event e set
    body = jsonb_build_object('id', e.id, 'type', e.type, 'created', extract(epoch from e.created_at)::bigint, 'data', '{"object": {}}'::jsonb, 'erased', true)::text,
    state = case when e.settled_at is null then 'ignored' else e.state end,
    settled_at = coalesce(e.settled_at, e.received_at),
    note = 'erased: its owner was deleted here'
  where e.id = the_id
$$;

create function meterbook.erase_stripe_events(the_entity bigint) returns void
language sql as $$
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

-- ----------------------------------------------------------------------------------------------------------------- subscriptions

create function meterbook.is_gone(e meterbook.billing_entity) returns boolean
language sql stable as $$
  -- Deleted: what concerns its subscription at Stripe has nobody left to concern.
  select e.external_id is null or e.kind = 'organization' and not exists (select from meterbook.organization o where o.entity_id = e.id)
$$;

create function meterbook.lock_stripe_subscription(the_id text, event_at timestamptz, named text default null)
returns table (seen_at timestamptz, seen_rank smallint, seen_event text, owner_said text, monthly_price numeric, invoiced_starts_at timestamptz,
               invoiced_ends_at timestamptz, subscription_id text, owner text, owner_is_gone boolean, cancels boolean, is_ours boolean,
               is_adopted boolean, named_at_stripe text)
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
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

create function meterbook.note_stripe_subscription(the_id text, seen_at timestamptz, seen_rank smallint, seen_event text, owner_said text, monthly_price numeric)
returns void
language sql security definer set search_path = meterbook, pg_temp as $$
  -- The newest event applied, and what its metadata said.
  update meterbook.stripe_subscription k set
    (seen_at, seen_rank, seen_event, owner_said, monthly_price) =
    (note_stripe_subscription.seen_at, note_stripe_subscription.seen_rank, note_stripe_subscription.seen_event,
     coalesce(note_stripe_subscription.owner_said, k.owner_said), coalesce(note_stripe_subscription.monthly_price, k.monthly_price))
  where k.id = the_id
$$;

create function meterbook.disown_cancellation(the_subscription text) returns void
language sql security definer set search_path = meterbook, pg_temp as $$
  -- We had it cancelled, Stripe had heard so, and somebody took it back there: their own doing, and it stays.
  update meterbook.subscription s set cancelled_by_us = false where s.id = the_subscription
$$;

create function meterbook.note_past_terms(the_subscription text, plan text, seats integer, included numeric, refresh_per_day numeric,
  is_entitled boolean, starts_at timestamptz, ends_at timestamptz, interval_months integer, anchor timestamptz, effective_at timestamptz,
  at timestamptz default null) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
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

create function meterbook.open_past_window(s meterbook.subscription, was meterbook.subscription, at timestamptz) returns void
language plpgsql as $$
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

create function meterbook.note_invoiced_period(the_id text, starts_at timestamptz, ends_at timestamptz, at timestamptz default null) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
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

create function meterbook.end_stripe_subscription(the_id text, ended_at timestamptz, at timestamptz default null) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
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

-- ------------------------------------------------------------------------------------------------------------------ who it concerns

create function meterbook.organization_is_known(organization text) returns boolean
language sql stable security definer set search_path = meterbook, pg_temp as $$
  select exists (select from meterbook.organization o join meterbook.billing_entity e on e.id = o.entity_id where e.external_id = organization)
$$;

create function meterbook.user_is_known(person text) returns boolean
language sql stable security definer set search_path = meterbook, pg_temp as $$
  select exists (select from meterbook.actor a where a.external_id = person)
$$;

create function meterbook.owners_at_stripe(the_subscription text, customer text) returns bigint[]
language sql stable security definer set search_path = meterbook, pg_temp as $$
  -- Who owns this subscription; without one that is known, all whose subscriptions this customer at Stripe pays.
  with own as (
    select s.owner_id from meterbook.subscription s where s.stripe_subscription = the_subscription or s.id = the_subscription),
  paying as (
    select s.owner_id from meterbook.subscription s where s.stripe_customer = customer and the_subscription is null)
  select coalesce(array_agg(distinct o.owner_id order by o.owner_id), '{}') from (select * from own union select * from paying) o
$$;

create function meterbook.debtors_of_invoice(the_invoice text) returns bigint[]
language sql stable security definer set search_path = meterbook, pg_temp as $$
  -- Whose charge an invoice of ours asks for: who was charged (I1), also where the subscription has passed to another owner since.
  select coalesce(array_agg(distinct o.entity_id order by o.entity_id), '{}')
  from meterbook.outbox_delivery d join meterbook.outbox o on o.id = d.outbox_id and o.kind = 'charge' where d.invoice = the_invoice
$$;

-- ------------------------------------------------------------------------------------------------------------------------ blocks

create function meterbook.block_by_stripe(the_entity bigint, reason text, reference text, event text, at timestamptz default null) returns boolean
language plpgsql security definer set search_path = meterbook, pg_temp as $$
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

create function meterbook.settle_at_stripe(reference text, outcome text, settled_at timestamptz) returns integer
language plpgsql security definer set search_path = meterbook, pg_temp as $$
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

create function meterbook.tell_proration(the_entity bigint, invoice text, cents bigint, at timestamptz default null) returns void
language sql security definer set search_path = meterbook, pg_temp as $$
  -- Stripe gave money back for a decrease in the middle of a period, which is to wait for its end (BEHAVIOUR §7): an operator is told, once.
  insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
  values (the_entity, 'alert', 'proration:' || the_entity || ':' || invoice,
          jsonb_build_object('alert', 'decrease_prorated', 'invoice', invoice, 'cents', cents), coalesce(meterbook.permitted(at), clock_timestamp())) on conflict do nothing
$$;

grant select on meterbook.stripe_event, meterbook.stripe_subscription, meterbook.stripe_settled to meterbook_reader, meterbook_importer;
revoke all on all functions in schema meterbook from public;
grant execute on function
  meterbook.store_stripe_event, meterbook.lock_stripe_event, meterbook.finish_stripe_event, meterbook.stripe_event_body, meterbook.stripe_events,
  meterbook.unsettled_stripe_events, meterbook.erase_stripe_event, meterbook.lock_stripe_subscription, meterbook.note_stripe_subscription, meterbook.disown_cancellation,
  meterbook.note_past_terms, meterbook.note_invoiced_period, meterbook.end_stripe_subscription, meterbook.organization_is_known, meterbook.user_is_known, meterbook.owners_at_stripe, meterbook.debtors_of_invoice,
  meterbook.block_by_stripe, meterbook.settle_at_stripe, meterbook.tell_proration
  to meterbook_writer, meterbook_importer;
