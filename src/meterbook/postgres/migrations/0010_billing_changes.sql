-- Edits of limits, caps, blocks and baselines; alerts; what the clock has passed; the end of a user or an organization.

create function meterbook.look_again(the_entity bigint, at timestamptz) returns void
language sql as $$
  -- Something but usage changed what an entity may use, or owes: its threshold and alerts are looked at.
  insert into meterbook.moved_entity (entity_id, since) values (the_entity, look_again.at)
$$;

create function meterbook.set_limit(the_entity bigint, stored numeric, by text, at timestamptz) returns void
language sql security definer set search_path = meterbook, pg_temp as $$
  insert into meterbook.entity_limit (entity_id, stored, set_at, set_by) values (the_entity, set_limit.stored, meterbook.permitted(set_limit.at), set_limit.by)
  on conflict (entity_id) do update set stored = excluded.stored, set_at = excluded.set_at, set_by = excluded.set_by;
  select meterbook.look_again(the_entity, set_limit.at)
$$;

create function meterbook.set_member_cap(organization text, person text, cap numeric) returns void
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- Null: no cap. 0: nothing.
declare
  the_entity bigint := meterbook.existing_organization(set_member_cap.organization);
  the_actor  bigint := (select a.id from meterbook.actor a where a.external_id = set_member_cap.person);
begin
  if not exists (select from meterbook.member m where m.organization_id = the_entity and m.actor_id = the_actor and m.left_at is null) then
    raise exception using errcode = 'MB023', message = 'the user is not a member of this organization';
  end if;
  delete from meterbook.member_cap c where c.organization_id = the_entity and c.actor_id = the_actor and set_member_cap.cap is null;
  insert into meterbook.member_cap (organization_id, actor_id, cap) select the_entity, the_actor, set_member_cap.cap where set_member_cap.cap is not null
  on conflict (organization_id, actor_id) do update set cap = excluded.cap;
end $$;

create function meterbook.set_block(the_entity bigint, reason text, reference text, blocked boolean, at timestamptz) returns boolean
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- True if something changed. A reference names what blocks; the block ends with it.
begin
  perform meterbook.permitted(set_block.at);
  if blocked then
    insert into meterbook.entity_block (entity_id, reason, reference, blocked_at) values (the_entity, set_block.reason, set_block.reference, set_block.at)
    on conflict do nothing;
  else
    delete from meterbook.entity_block b where b.entity_id = the_entity and b.reason = set_block.reason and b.reference = set_block.reference;
  end if;
  return found;
end $$;

create function meterbook.set_baseline(the_entity bigint, the_period bigint, amount numeric, days integer[], amounts numeric[], at timestamptz) returns void
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- Usage of a running period that a legacy counter held; of a closed one it never changes.
begin
  perform meterbook.permitted(set_baseline.at);
  if exists (select from meterbook.billing_period p where p.entity_id = the_entity and p.id = the_period and p.state <> 'open') then
    raise exception using errcode = 'MB040', message = 'the baseline of a closed period never changes';
  end if;
  delete from meterbook.period_baseline_day d where d.entity_id = the_entity and d.period_id = the_period;
  insert into meterbook.period_baseline (entity_id, period_id, amount) values (the_entity, the_period, set_baseline.amount)
  on conflict (entity_id, period_id) do update set amount = excluded.amount;
  insert into meterbook.period_baseline_day (entity_id, period_id, day, amount)
  select the_entity, the_period, u.day, u.amount from unnest(days, amounts) u(day, amount);
  perform meterbook.look_again(the_entity, set_baseline.at);
end $$;

create function meterbook.claim_marks(the_entity bigint, the_period bigint, marks smallint[], told smallint, payload jsonb, at timestamptz) returns boolean
language plpgsql security definer set search_path = meterbook, pg_temp as $$
-- Claims marks of the limit and tells about one of them, once. True if this call was the one that tells.
declare new_marks smallint[];
begin
  perform meterbook.permitted(claim_marks.at);
  with claimed as (
    insert into meterbook.alert_mark (entity_id, period_id, mark, claimed_at)
    select the_entity, the_period, m, claim_marks.at from unnest(marks) m order by m on conflict do nothing returning mark)
  select coalesce(array_agg(mark), '{}') into new_marks from claimed;
  if not told = any (new_marks) then return false; end if;
  insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
  values (the_entity, 'alert', 'mark:' || the_entity || ':' || the_period || ':' || told || ':' || gen_random_uuid(),
          claim_marks.payload || jsonb_build_object('alert', 'limit_' || told, 'period', the_period), claim_marks.at);
  return true;
end $$;

create function meterbook.arm_marks(the_entity bigint, the_period bigint) returns void
language sql security definer set search_path = meterbook, pg_temp as $$
  delete from meterbook.alert_mark m where m.entity_id = the_entity and m.period_id = the_period
$$;

create function meterbook.forget_moved(the_entity bigint, ids bigint[]) returns void
language sql security definer set search_path = meterbook, pg_temp as $$
  delete from meterbook.moved_entity m where m.entity_id = the_entity and m.id = any (ids)
$$;

create function meterbook.pass_clocks(entities bigint[], actors bigint[], at timestamptz) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- What the clock alone changes: who pays, and the periods that open.
begin
  perform meterbook.permitted(at);
  perform meterbook.settle_due(actors || meterbook.actors_of(entities), at);
  if cardinality(entities) > 0 then
    perform meterbook.open_periods(entities, at);
  end if;
end $$;

create function meterbook.end_subscriptions(the_entity bigint, at timestamptz) returns void
language plpgsql as $$
-- Ends what an entity is subscribed to, now: a cut; and Stripe is told to.
declare
  s meterbook.subscription;
  affected bigint[] := meterbook.lock_members_of(array[the_entity]);
begin
  perform meterbook.settle_due(affected, end_subscriptions.at);
  for s in select b.* from meterbook.subscription b
           where b.owner_id = the_entity and b.status not in ('canceled', 'incomplete_expired') order by b.id for update
  loop
    update meterbook.subscription b set status = 'canceled', ended_at = least(coalesce(b.ended_at, end_subscriptions.at), end_subscriptions.at), updated_at = end_subscriptions.at
    where b.id = s.id returning b.* into s;
    perform meterbook.amend_periods(s, s.owner_id, end_subscriptions.at, end_subscriptions.at);
    insert into meterbook.outbox (entity_id, kind, dedupe_key, payload, created_at)
    select s.owner_id, 'cancel_now', 'cancel_now:' || s.id || ':' || gen_random_uuid(),
           jsonb_build_object('subscription', s.id, 'stripe_subscription', s.stripe_subscription), end_subscriptions.at
    where s.stripe_subscription is not null;      -- else Stripe renews and charges for ever
  end loop;
  perform meterbook.open_periods(array[the_entity], end_subscriptions.at);
  perform meterbook.settle_payers(affected, end_subscriptions.at);
end $$;

create function meterbook.delete_user(person text, at timestamptz default null) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- Erases what the surrogates stood for, and no row. Leaves the organization first; its owner can't be deleted.
declare
  moment     timestamptz := coalesce(meterbook.permitted(delete_user.at), clock_timestamp());
  the_entity bigint := meterbook.entity_id_of('user:' || delete_user.person);
  the_actor  bigint := (select a.id from meterbook.actor a where a.external_id = delete_user.person);
  its_organization text;
  organization_id  bigint;
begin
  if the_actor is null then
    raise exception using errcode = 'MB020', message = format('user %L is not known', delete_user.person);
  end if;
  select e.external_id, e.id into its_organization, organization_id from meterbook.member m join meterbook.billing_entity e on e.id = m.organization_id
  where m.actor_id = the_actor and m.left_at is null;
  perform from meterbook.billing_entity e where e.id in (the_entity, organization_id) order by e.id for no key update;
  perform from meterbook.member m where m.actor_id = the_actor and m.left_at is null for no key update;
  perform meterbook.lock_members_of(array_remove(array[the_entity, organization_id], null));
  if its_organization is not null then
    perform meterbook.remove_member(its_organization, delete_user.person, moment);
  end if;
  perform meterbook.end_subscriptions(the_entity, moment);
  update meterbook.entity_limit l set set_by = '#' || the_actor where l.set_by = delete_user.person;
  perform meterbook.erase_stripe_events(the_entity);
  perform meterbook.erase_acts(delete_user.person, the_actor);
  update meterbook.actor a set external_id = null, payer_id = the_entity, payer_until = 'infinity' where a.id = the_actor;
  update meterbook.billing_entity e set external_id = null where e.id = the_entity;
end $$;

create function meterbook.delete_organization(organization text, at timestamptz default null) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- Ends its subscription; the members fall back as on leaving. Its rows stay.
declare
  moment     timestamptz := coalesce(meterbook.permitted(delete_organization.at), clock_timestamp());
  the_entity bigint := meterbook.existing_organization(delete_organization.organization);
  affected   bigint[];
begin
  perform from meterbook.billing_entity e where e.id = the_entity for no key update;
  perform from meterbook.organization o where o.entity_id = the_entity for update;
  perform from meterbook.member m where m.organization_id = the_entity and m.left_at is null order by m.id for no key update;
  affected := meterbook.lock_members_of(array[the_entity]);
  update meterbook.member m set left_at = greatest(moment, m.joined_at) where m.organization_id = the_entity and m.left_at is null;
  delete from meterbook.member_cap c where c.organization_id = the_entity;
  delete from meterbook.organization o where o.entity_id = the_entity;
  perform meterbook.end_subscriptions(the_entity, moment);
  perform meterbook.settle_payers(affected, moment);
end $$;

revoke all on all functions in schema meterbook from public;
grant execute on function
  meterbook.set_limit, meterbook.set_member_cap, meterbook.set_block, meterbook.set_baseline, meterbook.claim_marks, meterbook.arm_marks,
  meterbook.forget_moved, meterbook.pass_clocks, meterbook.delete_user, meterbook.delete_organization
  to meterbook_writer, meterbook_importer;
