-- Who may ask the HTTP door for what, and what was done through it by whom. Of a key only the digest of its 256 random bits is kept: enough to know it
-- again, useless to make it. Keys are made and ended by the owner or a keeper; a writer, which is all that a server needs to be, can only look one up.

create table meterbook.api_key (
  id           bigint generated always as identity primary key,
  prefix       text not null constraint api_key_prefix_is_taken unique constraint api_key_prefix_is_hexadecimal check (prefix ~ '^[0-9a-f]{12}$'),
  digest       bytea not null constraint api_key_digest_is_sha256 check (octet_length(digest) = 32),
  name         text not null constraint api_key_name_has_a_length check (length(name) between 1 and 255),
  scopes       text[] not null constraint api_key_scopes_are_known check (scopes <@ array['record', 'read', 'admin'] and cardinality(scopes) > 0),
  created_at   timestamptz not null,
  created_by   text not null,
  expires_at   timestamptz,
  revoked_at   timestamptz,
  last_used_at timestamptz,
  replaces     bigint constraint api_key_replaces_a_key references meterbook.api_key
);
comment on table meterbook.api_key is 'Keys of the HTTP door. `prefix` is shown, `digest` is the SHA-256 of the whole key, which nobody has but who was given it.';
comment on column meterbook.api_key.last_used_at is 'To the minute.';

create table meterbook.act_log (
  id      bigint generated always as identity primary key,
  at      timestamptz not null,
  by_whom text not null,
  act     text not null,
  request text not null
);
comment on table meterbook.act_log is 'Administrative acts, written before they are carried out: one without an outcome was cut off, and may or may not have taken effect.';

create table meterbook.act_detail (
  act_id  bigint primary key,
  subject text not null,
  said    jsonb not null
);
create index act_detail_by_subject on meterbook.act_detail (subject, act_id);
comment on table meterbook.act_detail is 'What an act was about, and what was said. Apart, because a person who is deleted is erased from it.';

create table meterbook.act_outcome (
  act_id  bigint primary key,
  at      timestamptz not null,
  outcome text not null constraint act_outcome_is_known check (outcome in ('done', 'refused', 'failed')),
  code    text
);
comment on table meterbook.act_outcome is 'What came of an act: done; refused, with the code of the error; failed, when it could not be told or done then.';

create trigger act_log_is_append_only        before update or delete on meterbook.act_log     for each row       execute function meterbook.refuse_change();
create trigger act_log_is_not_truncated      before truncate         on meterbook.act_log     for each statement execute function meterbook.refuse_change();
create trigger act_outcome_is_append_only    before update or delete on meterbook.act_outcome for each row       execute function meterbook.refuse_change();
create trigger act_outcome_is_not_truncated  before truncate         on meterbook.act_outcome for each statement execute function meterbook.refuse_change();
alter table meterbook.act_log     enable always trigger act_log_is_append_only;
alter table meterbook.act_log     enable always trigger act_log_is_not_truncated;
alter table meterbook.act_outcome enable always trigger act_outcome_is_append_only;
alter table meterbook.act_outcome enable always trigger act_outcome_is_not_truncated;

create function meterbook.make_api_key(prefix text, digest bytea, name text, scopes text[], by_whom text, expires_at timestamptz,
                                       replaces bigint default null, at timestamptz default null) returns bigint
language sql security definer set search_path = meterbook, pg_temp as $$
  insert into meterbook.api_key (prefix, digest, name, scopes, created_at, created_by, expires_at, replaces)
  values (make_api_key.prefix, make_api_key.digest, make_api_key.name, make_api_key.scopes, coalesce(meterbook.permitted(at), clock_timestamp()), by_whom,
          make_api_key.expires_at, make_api_key.replaces) returning id
$$;

create function meterbook.end_api_key(the_id bigint, ends_at timestamptz, at timestamptz default null) returns boolean
language sql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
  -- Now (`ends_at` null), or at a time, unless it ends sooner anyway. Null: there is no such key. False: it has ended already.
  with found as (
    select k.id, k.revoked_at is null and (k.expires_at is null or k.expires_at > coalesce(meterbook.permitted(at), clock_timestamp())) as lives
    from meterbook.api_key k where k.id = the_id for update),
  ended as (
    update meterbook.api_key k set
      revoked_at = case when ends_at is null then coalesce(meterbook.permitted(at), clock_timestamp()) end,
      expires_at = case when ends_at is null then k.expires_at else least(k.expires_at, ends_at) end
    from found f where f.lives and k.id = f.id returning k.id)
  select f.lives from found f left join ended e on e.id = f.id
$$;

create function meterbook.find_api_key(the_prefix text) returns setof meterbook.api_key
language sql stable security definer set search_path = meterbook, pg_temp as $$
  select k.* from meterbook.api_key k where k.prefix = the_prefix
$$;

create function meterbook.note_api_key_use(the_id bigint, at timestamptz default null) returns void
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- Once a minute is enough to know whether a key is still in use; whoever finds the row locked leaves it to the other.
declare moment timestamptz := coalesce(meterbook.permitted(note_api_key_use.at), clock_timestamp());
begin
  update meterbook.api_key k set last_used_at = moment
  where k.id = (select f.id from meterbook.api_key f where f.id = the_id and (f.last_used_at is null or f.last_used_at < moment - interval '1 minute')
                for update skip locked);
end $$;

create function meterbook.begin_act(by_whom text, act text, subject text, said jsonb, request text, at timestamptz default null) returns bigint
language sql security definer set search_path = meterbook, pg_temp as $$
  with logged as (
    insert into meterbook.act_log (at, by_whom, act, request)
    values (coalesce(meterbook.permitted(begin_act.at), clock_timestamp()), begin_act.by_whom, begin_act.act, begin_act.request) returning id)
  insert into meterbook.act_detail (act_id, subject, said) select l.id, begin_act.subject, begin_act.said from logged l returning act_id
$$;

create function meterbook.erase_acts(person text, the_actor bigint) returns void
language sql as $$
  -- A person who is deleted: where acts name them, as subject or in a field that names somebody, stands their surrogate.
  update meterbook.act_detail d set
    subject = case when d.subject = 'user:' || person then 'user:#' || the_actor else d.subject end,
    said = (select coalesce(jsonb_object_agg(f.key, case
              when f.key in ('user', 'by', 'owner', 'entity', 'payer') and f.value = to_jsonb(person) then to_jsonb('#' || the_actor)
              when f.key in ('user', 'by', 'owner', 'entity', 'payer') and f.value = to_jsonb('user:' || person) then to_jsonb('user:#' || the_actor)
              else f.value end), '{}') from jsonb_each(d.said) f)
  where d.subject = 'user:' || person
     or exists (select from jsonb_each_text(d.said) f where f.key in ('user', 'by', 'owner', 'entity', 'payer') and f.value in (person, 'user:' || person))
$$;

create function meterbook.end_act(the_act bigint, outcome text, code text, at timestamptz default null) returns void
language sql security definer set search_path = meterbook, pg_temp as $$
  insert into meterbook.act_outcome (act_id, at, outcome, code)
  values (the_act, coalesce(meterbook.permitted(end_act.at), clock_timestamp()), end_act.outcome, end_act.code) on conflict do nothing
$$;

create function meterbook.known_entity(entity text) returns bigint
language sql stable security definer set search_path = meterbook, pg_temp as $$
  -- Its surrogate, for who may read no table.
  select meterbook.entity_id_of(entity)
$$;

create function meterbook.known_holds(hold_keys text[], at timestamptz default null)
returns table (hold_key text, entity text, actor text, workspace text, amount numeric, granted_at timestamptz, expires_at timestamptz, state text,
               ended_at timestamptz, settled numeric)
language plpgsql stable security definer set search_path = meterbook, pg_temp as $$
-- Holds by their ids as they stand at this moment, for who may read no table: one that has run out is expired, whether or not somebody has noticed.
#variable_conflict use_column
declare moment timestamptz := coalesce(meterbook.permitted(known_holds.at), clock_timestamp());
begin
  return query
  select h.hold_key, e.kind || ':' || coalesce(e.external_id, '#' || e.id), coalesce(a.external_id, '#' || a.id), h.workspace, h.amount, h.granted_at,
         h.expires_at, case when h.state = 'active' and h.expires_at <= moment then 'expired' else h.state end, h.ended_at, h.settled
  from meterbook.hold h join meterbook.billing_entity e on e.id = h.entity_id join meterbook.actor a on a.id = h.actor_id
  where h.hold_key = any (known_holds.hold_keys);
end $$;

create function meterbook.ledger_gauges(at timestamptz default null)
returns table (deltas_waiting bigint, oldest_delta_s numeric, outbox_waiting bigint, oldest_outbox_s numeric, dead_letters bigint, closes_deferred bigint,
               stripe_events_waiting bigint, key_conflicts bigint, acts_without_outcome bigint)
language plpgsql stable security definer set search_path = meterbook, pg_temp as $$
-- What an operator watches, for whoever serves it: counts and ages, no name and no amount.
#variable_conflict use_column
declare moment timestamptz := coalesce(meterbook.permitted(ledger_gauges.at), clock_timestamp());
begin
  return query
  with waiting as (
    select o.created_at from meterbook.outbox o left join meterbook.outbox_delivery d on d.outbox_id = o.id
    where d.outbox_id is null or d.state in ('due', 'leased'))
  select (select count(*) from meterbook.usage_delta),
         (select coalesce(extract(epoch from moment - min(d.recorded_at)), 0) from meterbook.usage_delta d),
         (select count(*) from waiting),
         (select coalesce(extract(epoch from moment - min(w.created_at)), 0) from waiting w),
         (select count(*) from meterbook.outbox_delivery d where d.state = 'dead'),
         (select count(*) from meterbook.deferred_close),
         (select count(*) from meterbook.stripe_event e where e.state in ('pending', 'failed')),
         (select count(*) from meterbook.key_conflict),
         (select count(*) from meterbook.act_log l where l.at < moment - interval '1 minute'
            and not exists (select from meterbook.act_outcome o where o.act_id = l.id));
end $$;

do $$
begin
  if not exists (select from pg_roles where rolname = 'meterbook_keeper') then
    begin
      create role meterbook_keeper nologin;
    exception
      when duplicate_object or unique_violation then null;   -- another database of this server is migrated at the same moment
      when insufficient_privilege then
        raise exception using errcode = 'MB031', message = 'the role meterbook_keeper is missing and this user may not create it',
          hint = 'Let an administrator run: create role meterbook_keeper;';
    end;
  end if;
end $$;

grant select on meterbook.api_key, meterbook.act_log, meterbook.act_detail, meterbook.act_outcome to meterbook_reader, meterbook_importer;
grant usage on schema meterbook to meterbook_keeper;
revoke all on all functions in schema meterbook from public;
grant execute on function meterbook.known_entity, meterbook.ledger_gauges to meterbook_writer, meterbook_reader, meterbook_importer;
grant execute on function meterbook.make_api_key, meterbook.end_api_key to meterbook_keeper;
grant execute on function meterbook.find_api_key, meterbook.note_api_key_use, meterbook.begin_act, meterbook.end_act, meterbook.known_holds to meterbook_writer, meterbook_importer;
