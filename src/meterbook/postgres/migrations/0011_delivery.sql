-- What the outbox says, delivered exactly once (BEHAVIOUR §11): due → leased → delivered, or dead after trying for long enough. What was said stays
-- as it was said; what became of it stands beside it. Leases are fenced: a worker that lost its lease can't complete.

alter table meterbook.ledger add column uuid uuid not null default gen_random_uuid();
comment on column meterbook.ledger.uuid is 'Names this ledger in idempotency keys and metadata: two ledgers may share one Stripe account.';

alter table meterbook.outbox drop constraint outbox_kind_is_known;
alter table meterbook.outbox add constraint outbox_kind_is_not_empty check (kind <> '');
comment on column meterbook.outbox.kind is 'charge, cancel_at_period_end, cancel_now, seats, alert. One that the relay does not know (a newer version wrote it) is dead-lettered.';

create table meterbook.outbox_delivery (
  outbox_id    bigint primary key references meterbook.outbox (id),
  state        text not null default 'due' constraint outbox_delivery_state_is_known check (state in ('due', 'leased', 'delivered', 'dead')),
  due_at       timestamptz not null,
  attempts     integer not null default 0,
  first_try_at timestamptz,
  lease        bigint,
  step         text not null default '',
  step_since   timestamptz,
  round        integer not null default 1,
  invoice      text,
  item         text,
  note         text,
  settled_at   timestamptz,
  constraint outbox_delivery_leased_by_somebody check ((state = 'leased') = (lease is not null)),
  constraint outbox_delivery_settled_at_its_end check ((state in ('delivered', 'dead')) = (settled_at is not null))
);
create index outbox_delivery_due on meterbook.outbox_delivery (due_at) where state in ('due', 'leased');
create index outbox_delivery_of_invoice on meterbook.outbox_delivery (invoice) where invoice is not null;
create index outbox_delivery_dead on meterbook.outbox_delivery (outbox_id) where state = 'dead';
create sequence meterbook.outbox_lease;
comment on table meterbook.outbox_delivery is 'What became of each outbox row. due_at: the next try, or the end of the lease. note: the last error, or what came of it.';
comment on column meterbook.outbox_delivery.step is 'The step begun last; step_since: when it was first sent under its idempotency key, of which `round` is part.';

create function meterbook.expect_delivery() returns trigger
language plpgsql security definer set search_path = meterbook, pg_temp as $$
begin
  insert into meterbook.outbox_delivery (outbox_id, due_at) values (new.id, new.created_at);
  return null;
end $$;
create trigger outbox_expects_delivery after insert on meterbook.outbox for each row execute function meterbook.expect_delivery();
insert into meterbook.outbox_delivery (outbox_id, due_at) select o.id, o.created_at from meterbook.outbox o;

create type meterbook.claimed_delivery as (
  id bigint, lease bigint, kind text, entity_id bigint, entity text, payload jsonb, created_at timestamptz, attempts integer, first_try_at timestamptz,
  step text, step_since timestamptz, round integer, invoice text, item text, ledger uuid, currency text,
  period_starts_at timestamptz, period_ends_at timestamptz, holds jsonb, subscription text, stripe_subscription text, at timestamptz);

create function meterbook.claim_deliveries(without text[], how_many integer, lease_for interval, at timestamptz default null)
returns setof meterbook.claimed_delivery
language plpgsql security definer set search_path = meterbook, pg_temp as $$
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

create function meterbook.begin_step(the_id bigint, the_lease bigint, the_step text, the_round integer, invoice text, item text, lease_for interval,
                                     at timestamptz default null) returns boolean
language plpgsql security definer set search_path = meterbook, pg_temp as $$
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

create function meterbook.complete_delivery(the_id bigint, the_lease bigint, note text, sent jsonb default null, at timestamptz default null) returns text
language plpgsql security definer set search_path = meterbook, pg_temp as $$
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

-- is_stuck: Stripe repeats its answer under this key for a day, so the next try has another.
create function meterbook.postpone_delivery(the_id bigint, the_lease bigint, note text, delay interval, is_stuck boolean,
                                          at timestamptz default null) returns boolean
language plpgsql security definer set search_path = meterbook, pg_temp as $$
#variable_conflict use_variable
declare moment timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
begin
  update meterbook.outbox_delivery d set state = 'due', lease = null, note = postpone_delivery.note,
    due_at = moment + delay, round = d.round + is_stuck::integer
  where d.outbox_id = the_id and d.lease = the_lease and d.state = 'leased';
  return found;
end $$;

create function meterbook.bury_delivery(the_id bigint, the_lease bigint, note text, at timestamptz default null) returns boolean
language plpgsql security definer set search_path = meterbook, pg_temp as $$
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

create function meterbook.redrive_delivery(the_id bigint, at timestamptz default null, invoice_is_gone boolean default false) returns text
language plpgsql security definer set search_path = meterbook, pg_temp as $$
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

grant select on meterbook.outbox_delivery to meterbook_reader, meterbook_importer;
revoke all on all functions in schema meterbook from public;
grant execute on function
  meterbook.claim_deliveries, meterbook.begin_step, meterbook.complete_delivery, meterbook.postpone_delivery, meterbook.bury_delivery,
  meterbook.redrive_delivery
  to meterbook_writer, meterbook_importer;
