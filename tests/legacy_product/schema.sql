-- The tables of a product that counts usage in a row a user, in the shape of simstudioai/sim before May 2026; what billing does not read is left out.
create table public.organization (
  id text primary key,
  name text not null,
  org_usage_limit numeric,
  credit_balance numeric not null default 0,
  departed_member_usage numeric not null default 0);

create table public.member (
  id text primary key,
  user_id text not null,
  organization_id text not null,
  role text not null,
  created_at timestamp not null);

create table public.subscription (
  id text primary key,
  plan text not null,
  reference_id text not null,
  status text not null,
  period_start timestamp,
  period_end timestamp,
  cancel_at_period_end boolean not null default false,
  seats integer,
  stripe_customer_id text,
  stripe_subscription_id text);

create table public.user_stats (
  user_id text primary key,
  current_period_cost numeric not null default 0,
  last_period_cost numeric default 0,
  billed_overage_this_period numeric not null default 0,
  credit_balance numeric not null default 0,
  current_usage_limit numeric default 5,
  billing_blocked boolean not null default false,
  billing_blocked_reason text,
  pro_period_cost_snapshot numeric default 0,
  pro_period_cost_snapshot_at timestamp,
  last_active timestamp);

create table public.usage_log (
  id text primary key,
  user_id text not null,
  category text not null,
  source text not null,
  description text not null,
  cost numeric not null,
  workspace_id text,
  workflow_id text,
  execution_id text,
  created_at timestamp not null);
create index usage_log_user_created on public.usage_log (user_id, created_at);
