-- Money that is right: limits, caps, blocks, baselines, credits, charges, the outbox, seals, holds (BEHAVIOUR §6–§10, §12).
-- All of it is keyed by the billing entity and its period (I1); what was charged, granted, spent or sealed is append-only.

-- ----------------------------------------------------------------------------------------------------------------------- limits

create table meterbook.entity_limit (
  entity_id bigint primary key,
  stored    numeric not null constraint entity_limit_is_money check (stored >= 0 and stored < 1e12 and stored = round(stored, 2)),
  set_at    timestamptz not null,
  set_by    text
);
comment on table meterbook.entity_limit is 'What an edit stored, in whole cents; only an edit writes it.';

create table meterbook.member_cap (
  organization_id bigint not null,
  actor_id        bigint not null,
  cap             numeric not null constraint member_cap_is_money check (cap >= 0 and cap < 1e12),
  primary key (organization_id, actor_id)
);

create table meterbook.entity_block (
  entity_id  bigint not null,
  reason     text not null constraint entity_block_reason_is_known check (reason in ('payment_failed', 'dispute', 'administrative')),
  reference  text not null default '',
  blocked_at timestamptz not null,
  primary key (entity_id, reason, reference)
);
comment on column meterbook.entity_block.reference is 'The invoice or dispute that blocks; the block ends with it, not with another one''s success.';

create table meterbook.alert_mark (
  entity_id  bigint not null,
  period_id  bigint not null,
  mark       smallint not null constraint alert_mark_is_known check (mark in (80, 100)),
  claimed_at timestamptz not null,
  primary key (entity_id, period_id, mark)
);
comment on table meterbook.alert_mark is 'Marks of the limit that were crossed and told; below 70 % both are armed again.';

-- -------------------------------------------------------------------------------------------------------------- terms of periods

create table meterbook.subscription_segment (
  owner_id        bigint not null,
  id              bigint generated always as identity,
  subscription_id text not null,
  effective_at    timestamptz not null,
  plan            text not null,
  seats           integer not null,
  included        numeric,
  refresh_per_day numeric not null,
  noted_at        timestamptz not null,
  primary key (owner_id, id)
);
create index subscription_segment_by_time on meterbook.subscription_segment (subscription_id, effective_at);
comment on table meterbook.subscription_segment is 'Plan and seats of a subscription from an instant on; a period''s allowance is the largest that was in force in it.';

create table meterbook.period_baseline (
  entity_id  bigint not null,
  period_id  bigint not null,
  amount     numeric not null constraint period_baseline_is_money check (amount >= 0 and amount < 1e12),
  primary key (entity_id, period_id)
);
create table meterbook.period_baseline_day (
  entity_id  bigint not null,
  period_id  bigint not null,
  day        integer not null,
  amount     numeric not null constraint period_baseline_day_is_money check (amount >= 0 and amount < 1e12),
  primary key (entity_id, period_id, day)
);
comment on table meterbook.period_baseline_day is 'The days that legacy audit rows give the baseline, oldest first until it is used up; the rest has no day and is not refreshed.';

-- ------------------------------------------------------------------------------------------------------------ charges and credits

create table meterbook.charge (
  entity_id         bigint not null,
  id                bigint generated always as identity,
  period_id         bigint not null,
  kind              text not null constraint charge_kind_is_known check (kind in ('threshold', 'final', 'carried')),
  charged_cents     bigint not null constraint charge_charged_not_negative check (charged_cents >= 0),
  credits_cents     bigint not null constraint charge_credits_not_negative check (credits_cents >= 0),
  written_off_cents bigint not null default 0 constraint charge_written_off_not_negative check (written_off_cents >= 0),
  overage           numeric not null,
  at                timestamptz not null,
  primary key (entity_id, id),
  constraint charge_of_something check (charged_cents + credits_cents + written_off_cents > 0)
);
create index charge_of_period on meterbook.charge (entity_id, period_id);
create unique index charge_final_once on meterbook.charge (entity_id, period_id) where kind = 'final';

create table meterbook.credit_grant (
  entity_id  bigint not null,
  id         bigint generated always as identity,
  grant_key  text not null constraint credit_grant_is_named_once unique,
  cents      bigint not null constraint credit_grant_positive check (cents > 0),
  source     text not null,
  priority   integer not null,
  expires_at timestamptz,
  granted_at timestamptz not null,
  period_id  bigint,
  primary key (entity_id, id)
);
comment on column meterbook.credit_grant.period_id is 'The closed period that a correction gave back.';

create table meterbook.credit_spend (
  entity_id bigint not null,
  grant_id  bigint not null,
  id        bigint generated always as identity,
  charge_id bigint,
  moved_to  bigint,
  cents     bigint not null constraint credit_spend_positive check (cents > 0),
  at        timestamptz not null,
  primary key (entity_id, grant_id, id),
  constraint credit_spend_for_something check ((charge_id is null) <> (moved_to is null))
);
comment on table meterbook.credit_spend is 'Which grant paid which charge. Never taken back.';

create table meterbook.outbox (
  id         bigint generated always as identity primary key,
  entity_id  bigint not null,
  kind       text not null constraint outbox_kind_is_known check (kind in ('charge', 'cancel_at_period_end', 'cancel_now', 'alert')),
  dedupe_key text not null constraint outbox_is_said_once unique,
  payload    jsonb not null,
  created_at timestamptz not null
);
comment on table meterbook.outbox is 'What has to be told to others, written in the transaction that decided it (I3).';

create table meterbook.sealed_period (
  entity_id         bigint not null,
  period_id         bigint not null,
  closed_at         timestamptz not null,
  baseline          numeric not null,
  amount            numeric not null,
  entries           bigint not null,
  digest            numeric not null,
  refresh           numeric not null,
  effective         numeric not null,
  overage           numeric not null,
  charged_cents     bigint not null,
  credits_cents     bigint not null,
  written_off_cents bigint not null,
  given_back_cents  bigint not null,
  primary key (entity_id, period_id)
);
comment on table meterbook.sealed_period is 'Final figures of a closed period, whole; what becomes visible later is late.';

create table meterbook.sealed_actor (
  entity_id bigint not null,
  period_id bigint not null,
  actor_id  bigint not null,
  amount    numeric not null,
  entries   bigint not null,
  primary key (entity_id, period_id, actor_id)
);

create table meterbook.correction (
  entity_id bigint not null,
  key       uuid not null,
  corrects  uuid not null,
  of_period bigint not null,
  of_day    integer,
  booked    bigint not null,
  amount    numeric not null,
  primary key (entity_id, key)
);
create index correction_of_period on meterbook.correction (entity_id, of_period);
comment on table meterbook.correction is 'Corrections once more, by the period and day of the entry that they correct: what a bill is recomputed with.';

create table meterbook.moved_entity (
  entity_id bigint not null,
  id        bigint generated always as identity,
  since     timestamptz not null,
  primary key (entity_id, id)
);
comment on table meterbook.moved_entity is
  'Entities whose total or limit moved, or will at `since`, and that nobody has looked at for thresholds and alerts yet. A row a move, so that one that comes while '
  'somebody looks is not forgotten with those that were seen, and nobody waits for anybody.';

create table meterbook.shadowed_entity (
  entity_id bigint primary key,
  since     timestamptz not null
);
comment on table meterbook.shadowed_entity is
  'Entities that somebody else still counts and bills (BEHAVIOUR §13, shadow): recorded and read here, but not billed, closed, or told to anybody.';

create table meterbook.deferred_close (
  entity_id bigint not null,
  period_id bigint not null,
  reason    text not null,
  since     timestamptz not null,
  primary key (entity_id, period_id)
);
comment on table meterbook.deferred_close is 'Periods whose charge can''t be addressed, or determined: never forgiven, they wait for ids, an owner, or an event of Stripe''s that failed.';

-- ------------------------------------------------------------------------------------------------------------------------- holds

create table meterbook.hold (
  hold_key   text primary key,
  entity_id  bigint not null,
  actor_id   bigint not null,
  workspace  text,
  amount     numeric not null constraint hold_amount_is_money check (amount > 0 and amount < 1e12),
  granted_at timestamptz not null,
  expires_at timestamptz not null,
  state      text not null default 'active' constraint hold_state_is_known check (state in ('active', 'settled', 'released', 'expired')),
  ended_at   timestamptz,
  settled    numeric,
  settle_key uuid
);
create index hold_active on meterbook.hold (entity_id, expires_at) where state = 'active';
create index hold_of_entity on meterbook.hold (entity_id, granted_at);

create table meterbook.hold_gate (
  entity_id bigint primary key,
  held      numeric not null
);
comment on table meterbook.hold_gate is 'Sum of the holds granted and not yet seen to end. Locked by hold alone, in short transactions.';

create table meterbook.hold_end (
  entity_id bigint not null,
  amount    numeric not null,
  hold_key  text not null,
  primary key (entity_id, hold_key)
);
comment on table meterbook.hold_end is 'Holds that ended since the gate was last counted; appended by whoever ends them, consumed by the next hold.';

create index billing_period_to_close on meterbook.billing_period (ends_at) where state <> 'closed';

do $$
declare kept text;
begin
  foreach kept in array array['charge', 'credit_grant', 'credit_spend', 'sealed_period', 'sealed_actor', 'subscription_segment', 'correction'] loop
    execute format('create trigger %I before update or delete on meterbook.%I for each row execute function meterbook.refuse_change()', kept || '_is_append_only', kept);
    execute format('create trigger %I before truncate on meterbook.%I for each statement execute function meterbook.refuse_change()', kept || '_is_not_truncated', kept);
    execute format('alter table meterbook.%I enable always trigger %I', kept, kept || '_is_append_only');
    execute format('alter table meterbook.%I enable always trigger %I', kept, kept || '_is_not_truncated');
  end loop;
end $$;
