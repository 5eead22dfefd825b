-- name: read_health
-- What an operator has to know about the server and the ledger on it.
select current_setting('server_version') as version, current_setting('server_version_num')::integer as version_number,
       current_database() as database, current_user as "user", current_setting('fsync') as fsync,
       current_setting('synchronous_commit') as synchronous_commit, current_setting('full_page_writes') as full_page_writes,
       current_setting('jit') as jit, current_setting('server_encoding') as encoding, current_setting('max_connections') as max_connections,
       pg_is_in_recovery() as standby, clock_timestamp() as clock

-- name: read_ledger_health
-- Partitions ahead of now, rows that strayed into the default one, deltas and events of Stripe's that wait, one subscription that is known as two, conflicts noted, roles that are missing.
select (select count(*) from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'meterbook.usage_log'::regclass and c.relname > to_char(coalesce(%(at)s::timestamptz, clock_timestamp()), '"usage_log_y"YYYY"m"MM')
          and c.relname <> 'usage_log_default') as partitions_ahead,
       exists (select from meterbook.usage_log_default) as default_has_rows,
       (select count(*) from meterbook.usage_delta) as deltas,
       (select min(d.recorded_at) from meterbook.usage_delta d) as oldest_delta,
       pg_catalog.pg_total_relation_size('meterbook.usage_delta') as delta_bytes,
       (select count(*) from meterbook.key_conflict) as conflicts,
       (select count(*) from meterbook.stripe_event e where e.state in ('pending', 'failed')
         and e.received_at < coalesce(%(at)s::timestamptz, clock_timestamp()) - interval '1 minute') as stripe_events_waiting,
       (select count(*) from meterbook.subscription s where s.status not in ('canceled', 'incomplete_expired') and exists (
          select from meterbook.subscription o where o.id > s.id and o.status not in ('canceled', 'incomplete_expired')
            and (o.stripe_subscription = s.stripe_subscription
                 or (o.owner_id, o.plan) = (s.owner_id, s.plan) and (o.stripe_subscription is null) <> (s.stripe_subscription is null)))) as subscriptions_twice,
       (select coalesce(string_agg(wanted, ', '), '') from unnest(array['meterbook_writer', 'meterbook_reader', 'meterbook_importer', 'meterbook_keeper']) wanted
        where not exists (select from pg_catalog.pg_roles r where r.rolname = wanted)) as roles_missing,
       (select l.currency from meterbook.ledger l) as currency,
       (select l.free_period from meterbook.ledger l) as free_period
