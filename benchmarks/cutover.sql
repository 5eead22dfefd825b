-- name: fill
-- A product with a past: rows of 60 days, users in order of their number, one in ten of an organization of ten.
insert into public.organization (id, name) select 'org_' || n, 'Org ' || n from generate_series(0, %(users)s / 100 - 1) n

-- name: fill_members
insert into public.member (id, user_id, organization_id, role, created_at)
select 'm_' || n, 'user_' || n, 'org_' || n / 10, case when n %% 10 = 0 then 'owner' else 'member' end, %(starts)s::timestamp - interval '90 days'
from generate_series(0, %(users)s / 10 - 1) n

-- name: fill_subscriptions
insert into public.subscription (id, plan, reference_id, status, period_start, period_end, seats)
select 'sub_' || o.id, 'team_6000', o.id, 'active', %(starts)s::timestamp, %(ends)s::timestamp, 10 from public.organization o
union all
select 'sub_user_' || n, 'pro_6000', 'user_' || n, 'active', %(starts)s::timestamp, %(ends)s::timestamp, null
from generate_series(%(users)s / 10, %(users)s / 2) n

-- name: fill_rows
-- A page of the audit log: spread over users and time.
insert into public.usage_log (id, user_id, category, source, description, cost, created_at)
select 'log_' || n, 'user_' || n %% %(users)s, 'model', 'workflow', 'gpt-4o', ((n * 7919) %% 20000) / 1000000.0 + 0.000001,
       %(now)s::timestamp - interval '60 days' * ((n * 104729) %% 1000003) / 1000003.0
from generate_series(%(first)s::bigint, %(last)s::bigint) n

-- name: fill_counters
-- What the running period's rows add up to.
insert into public.user_stats (user_id, current_period_cost)
select 'user_' || n, coalesce(sum(l.cost), 0) from generate_series(0, %(users)s - 1) n
left join public.usage_log l on l.user_id = 'user_' || n and l.created_at >= %(starts)s::timestamp group by n

-- name: settle
vacuum (analyze) public.usage_log, public.user_stats

-- name: blocked
-- Writers that wait at this moment for somebody who is no writer.
select count(*) from pg_stat_activity w
cross join lateral unnest(pg_blocking_pids(w.pid)) b(pid) join pg_stat_activity o on o.pid = b.pid
where w.application_name = 'writer' and o.application_name <> 'writer'

-- name: slow
-- What writers wait for that have been in one statement for 50 ms: the processor, where it is nothing that PostgreSQL knows.
select coalesce(w.wait_event_type || ' ' || w.wait_event, 'processor'), count(*) from pg_stat_activity w
where w.application_name = 'writer' and w.state = 'active' and clock_timestamp() - w.query_start > interval '50 ms' group by 1

-- name: sum_counters
select sum(s.current_period_cost) from public.user_stats s

-- name: sum_ledger
select sum(meterbook.sum_period(e.entity_id, e.period_id, clock_timestamp())) from meterbook.cutover_entity e
