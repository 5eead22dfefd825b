-- Seats that Stripe is told (BEHAVIOUR §7, §11), and what keeps a bill waiting: an event of its subscription that could not be applied (I4).

alter table meterbook.subscription add column seats_wanted integer constraint subscription_seats_wanted_positive check (seats_wanted > 0);
comment on column meterbook.subscription.seats_wanted is 'What Stripe was last to be told. `seats` follows Stripe''s own word, so that no seat helps that nobody is asked to pay.';

create function meterbook.holds_now(the_kind text, s meterbook.subscription) returns jsonb
language sql immutable as $$
  -- What a row of the outbox of this kind has to say of a subscription, as it is at this moment.
  select case the_kind when 'cancel_at_period_end' then to_jsonb(s.cancel_at_period_end) when 'seats' then to_jsonb(s.seats_wanted) end
$$;

create function meterbook.set_seats(the_subscription text, the_seats integer, contracts text[], at timestamptz default null) returns text
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
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

create function meterbook.seats_paid(the_subscription text, starts_at timestamptz) returns integer
language sql stable security definer set search_path = meterbook, pg_temp as $$
  -- The most seats of its present plan that were in force in the period that began at `starts_at`: they are paid until its end, so that whoever gives
  -- some up and takes them back is not asked twice.
  with segment as (
    select g.plan, g.seats, lead(g.effective_at) over (order by g.effective_at, g.id) as until
    from meterbook.subscription_segment g where g.subscription_id = the_subscription)
  select coalesce(max(g.seats), 0) from segment g join meterbook.subscription s on s.id = the_subscription and s.plan = g.plan
  where g.until is null or g.until > seats_paid.starts_at
$$;

create function meterbook.tell_cancellation_again(the_subscription text, at timestamptz default null) returns void
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- Ours was decided before the subscription had an id at Stripe: there was nobody to tell.
declare moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
begin
  perform meterbook.tell_cancellation(s.owner_id, s.id, true, moment) from meterbook.subscription s where s.id = the_subscription and s.cancelled_by_us;
end $$;

create function meterbook.event_waits(the_entity bigint, the_period bigint) returns boolean
language sql stable security definer set search_path = meterbook, pg_temp as $$
  -- Whether Stripe told something of a period's subscription, before the period's end, that could not be applied: what it includes is not known then.
  select exists (
    select from meterbook.billing_period p
    join meterbook.subscription s on s.id = p.subscription_id
    join meterbook.stripe_event e on e.state in ('pending', 'failed') and e.created_at < p.ends_at
      and e.subject in (s.id, s.stripe_subscription, p.stripe_subscription) and starts_with(e.type, 'customer.subscription.')
    where p.entity_id = the_entity and p.id = the_period)
$$;

create function meterbook.dismiss_stripe_event(the_id text, why text, at timestamptz default null) returns text
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
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

revoke all on all functions in schema meterbook from public;
grant execute on function
  meterbook.set_seats, meterbook.seats_paid, meterbook.tell_cancellation_again, meterbook.event_waits, meterbook.dismiss_stripe_event
  to meterbook_writer, meterbook_importer;
