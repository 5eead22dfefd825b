-- Proof (BEHAVIOUR §14) and least privilege.

create function meterbook.recomputed(the_entity bigint default null)
returns table (entity_id bigint, period_id bigint, grain text, part text, detail text, amount numeric, entries bigint, digest numeric)
language sql stable as $$
  -- What the rollups should say: every grain of every period, from the entries, less the deltas that wait.
  with logged as (
    select l.entity_id, coalesce(e.booked, l.period_id) as period_id, case when e.key is null then l.day else e.day end as day,
           l.actor_id, l.source, l.description, l.amount, 1::bigint as entries, meterbook.key_weight(l.key) * l.amount as digest
    from meterbook.usage_log l left join meterbook.late_entry e on e.entity_id = l.entity_id and e.key = l.key
    where the_entity is null or l.entity_id = the_entity
    union all
    select d.entity_id, d.period_id, d.day, d.actor_id, d.source, d.description, -d.amount, -d.entries, -d.digest from meterbook.usage_delta d
    where the_entity is null or d.entity_id = the_entity)
  select g.entity_id, g.period_id,
         case grouping(g.day, g.actor_id, g.source) when 7 then 'total' when 3 then 'day' when 5 then 'actor' else 'description' end,
         coalesce(g.day::text, g.actor_id::text, g.source, ''), coalesce(g.description, ''), sum(g.amount), sum(g.entries)::bigint, sum(g.digest)
  from logged g
  group by grouping sets ((g.entity_id, g.period_id), (g.entity_id, g.period_id, g.day), (g.entity_id, g.period_id, g.actor_id),
                          (g.entity_id, g.period_id, g.source, g.description))
$$;

create function meterbook.applied_migrations() returns table (number integer, checksum text)
language sql stable security definer set search_path = meterbook, pg_temp as $$
  select m.number, m.checksum from meterbook.migration m order by m.number
$$;

create function meterbook.settled() returns table (currency text, free_period text, is_demo boolean)
language sql stable security definer set search_path = meterbook, pg_temp as $$
  -- What was decided for good when the ledger was made.
  select l.currency, l.free_period, l.is_demo from meterbook.ledger l
$$;

create function meterbook.begin_demo() returns boolean
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- The owner says that what comes is made up. False: somebody is known here, and nobody said so before them.
begin
  update meterbook.ledger l set is_demo = true
  where not l.is_demo and not exists (select from meterbook.billing_entity) and not exists (select from meterbook.event_key);
  return (select l.is_demo from meterbook.ledger l);
end $$;

create function meterbook.rebuild(the_entity bigint) returns bigint
language plpgsql security definer set search_path = meterbook, pg_temp set jit = off as $$
-- Derives an entity's rollups anew from its entries; the deltas that wait stay as they are. Under the fold's lock. Gives the rows made.
declare made bigint;
begin
  perform pg_advisory_xact_lock(5067, 1);
  delete from meterbook.usage_rollup r where r.entity_id = the_entity;
  with grouped as (
    select g.* from meterbook.recomputed(the_entity) g where g.entries > 0),
  ranked as (
    select g.*, row_number() over (partition by g.period_id, g.grain order by g.entries desc, g.part, g.detail) as place from grouped g)
  insert into meterbook.usage_rollup (entity_id, period_id, grain, part, detail, amount, entries, digest, descriptions)
  select the_entity, r.period_id, r.grain, r.part, case when r.grain = 'description' and r.place > 1000 then '(other)' else r.detail end,
         sum(r.amount), sum(r.entries), sum(r.digest),
         case when r.grain = 'total' then (select least(count(*), 1000) from ranked d where d.period_id = r.period_id and d.grain = 'description') else 0 end
  from ranked r group by r.period_id, r.grain, r.part, 5;
  get diagnostics made = row_count;
  return made;
end $$;

-- -------------------------------------------------------------------------------------------------------------------------- roles
-- The owner is who migrates. A writer may call the functions and touches no table; a reader reads; an importer may COPY as well.

do $$
declare wanted text;
begin
  foreach wanted in array array['meterbook_writer', 'meterbook_reader', 'meterbook_importer'] loop
    if not exists (select from pg_roles where rolname = wanted) then
      begin
        execute format('create role %I nologin', wanted);
      exception
        when duplicate_object or unique_violation then null;   -- another database of this server is migrated at the same moment
        when insufficient_privilege then
          raise exception using errcode = 'MB031', message = format('the role %I is missing and this user may not create it', wanted),
            hint = 'Let an administrator run: create role meterbook_writer; create role meterbook_reader; create role meterbook_importer;';
      end;
    end if;
  end loop;
end $$;

revoke all on all functions in schema meterbook from public;
grant usage on schema meterbook to meterbook_writer, meterbook_reader, meterbook_importer;

grant execute on function
  meterbook.digest_field(text), meterbook.event_key(text), meterbook.fingerprint(text, text, text, text, numeric, text),
  meterbook.correction_fingerprint(uuid, numeric, text), meterbook.key_weight(uuid), meterbook.entity_id_of(text),
  meterbook.day_in(timestamptz, timestamptz, timestamptz), meterbook.applied_migrations(), meterbook.settled()
  to meterbook_writer, meterbook_reader, meterbook_importer;
grant execute on function
  meterbook.record_usage, meterbook.record_cumulative, meterbook.correct_entry, meterbook.attribute, meterbook.note_conflicts,
  meterbook.first_said, meterbook.first_flush, meterbook.resolve, meterbook.parties_of,
  meterbook.put_subscription, meterbook.put_organization, meterbook.add_member, meterbook.remove_member, meterbook.transfer_ownership,
  meterbook.put_workspace, meterbook.compact, meterbook.ensure_partitions
  to meterbook_writer, meterbook_importer;
grant select on all tables in schema meterbook to meterbook_reader, meterbook_importer;
grant execute on function meterbook.pending_of, meterbook.late_parts, meterbook.usage_terms, meterbook.recomputed,
  meterbook.payer_of_entry, meterbook.goes_by, meterbook.place, meterbook.home_at, meterbook.standing
  to meterbook_reader, meterbook_importer;
grant insert on meterbook.event_key, meterbook.usage_log, meterbook.usage_delta, meterbook.entry_metadata to meterbook_importer;
