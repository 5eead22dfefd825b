-- name: make_origin
-- The shape of the origin's usage_log (simstudioai/sim, May 2026): its columns, its text keys, its seven indexes besides the primary key.
-- In its favour: no foreign keys, no check.
create table usage_log (
  id text primary key, user_id text not null, category text not null, source text not null, description text not null, metadata jsonb,
  cost numeric not null, event_key text, billing_entity_type text, billing_entity_id text, billing_period_start timestamp,
  billing_period_end timestamp, workspace_id text, workflow_id text, execution_id text, created_at timestamp not null default now());
create index usage_log_by_user on usage_log (user_id, created_at);
create index usage_log_by_source on usage_log (source);
create index usage_log_by_workspace on usage_log (workspace_id);
create index usage_log_by_workflow on usage_log (workflow_id);
create index usage_log_by_workspace_and_time on usage_log (workspace_id, created_at);
create unique index usage_log_once on usage_log (event_key) where event_key is not null;
create index usage_log_by_period on usage_log (billing_entity_type, billing_entity_id, billing_period_start, billing_period_end)
  where billing_entity_type is not null;

-- name: cover_origin
-- What the origin added later, so that its sums read no table: one more index at each insert.
create index usage_log_cost_by_period on usage_log
  (billing_entity_type, billing_entity_id, billing_period_start, user_id, created_at, billing_period_end, source, cost)
  where billing_entity_type is not null;

-- name: insert_origin
insert into usage_log (id, user_id, category, source, description, cost, event_key, billing_entity_type, billing_entity_id,
  billing_period_start, billing_period_end, workspace_id, workflow_id, execution_id)
values (%(id)s, %(user)s, 'model', %(source)s, %(model)s, %(amount)s, %(key)s, 'user', %(user)s, '2026-06-01', '2026-07-01',
  %(workspace)s, %(workflow)s, %(execution)s)
on conflict do nothing

-- name: sum_origin
select sum(cost) from usage_log
where billing_entity_type = 'user' and billing_entity_id = %(user)s and billing_period_start = '2026-06-01' and billing_period_end = '2026-07-01'

-- name: make_counter
-- What the origin replaced: a row a user that every charge updates, beside a log of the charges.
create table user_stats (user_id text primary key, total_cost numeric not null, calls bigint not null) with (fillfactor = 50);
create table charge_log (id text primary key, user_id text not null, source text not null, description text not null, cost numeric not null,
  created_at timestamptz not null default now());
create index charge_log_by_user on charge_log (user_id, created_at);
insert into user_stats select 'user_' || n, 0, 0 from generate_series(0, 2000) n

-- name: insert_counter
-- Both in one statement: one round trip, and the row is locked for as short as can be.
with logged as (
  insert into charge_log (id, user_id, source, description, cost) values (%(id)s, %(user)s, %(source)s, %(model)s, %(amount)s) returning user_id)
update user_stats s set total_cost = s.total_cost + %(amount)s, calls = s.calls + 1 from logged l where s.user_id = l.user_id
