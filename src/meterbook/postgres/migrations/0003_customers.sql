-- Subscriptions, organizations, members, workspaces: what changes who pays and which periods there are (BEHAVIOUR §4, §7, §10, §12).
-- Each function is one short transaction of its own. Lock order: organization → member → actor → subscription → billing_period → period_clock.

create function meterbook.existing_organization(organization text) returns bigint
language plpgsql stable as $$
declare found_id bigint;
begin
  select e.id into found_id from meterbook.billing_entity e join meterbook.organization o on o.entity_id = e.id
  where e.kind = 'organization' and e.external_id = organization;
  if found_id is null then
    raise exception using errcode = 'MB020', message = format('organization %L is not known', organization), hint = 'Call put_organization first.';
  end if;
  return found_id;
end $$;

create function meterbook.owner_entity(owner text) returns bigint
language plpgsql as $$
-- The surrogate of who a subscription belongs to: a user is made known, an organization must be.
begin
  if split_part(owner, ':', 1) = 'organization' then
    return meterbook.existing_organization(substr(owner, 14));
  end if;
  perform meterbook.person(substr(owner, 6));
  return meterbook.entity_id_of(owner);
end $$;

create function meterbook.amend_periods(s meterbook.subscription, previous_owner bigint, effective timestamptz, at timestamptz) returns void
language plpgsql as $$
-- What a subscription now says, applied to its periods that still run: a later start, an end, another owner, or a change between a plan
-- with overage and one without cuts; another end of the same start moves the end; the allowance is recomputed from all that was in force.
-- What is effective at a period's start, or before, replaces what the clock assumed when it opened the period, and cuts nothing.
declare
  p meterbook.billing_period;
  cut timestamptz;
  new_end timestamptz;
begin
  -- an end that moves behind one that the clock has passed: what the clock opened then begins there
  update meterbook.billing_period n set starts_at = s.ends_at, moved = true
  from meterbook.billing_period b
  where b.entity_id = s.owner_id and b.subscription_id = s.id and b.state = 'open' and not b.cut and b.starts_at = s.starts_at and b.ends_at <= at and s.ends_at > at
    and s.interval_months = 1 and n.entity_id = b.entity_id and n.subscription_id = s.id and n.kind = 'dated' and n.state = 'open' and n.starts_at = b.ends_at and n.ends_at > s.ends_at;
  for p in
    select b.* from meterbook.billing_period b
    where b.entity_id in (s.owner_id, previous_owner) and b.subscription_id = s.id and b.state = 'open' order by b.entity_id, b.id for no key update
  loop
    cut := least(case when s.starts_at > p.starts_at then s.starts_at end,
                 s.ended_at,
                 case when p.entity_id <> s.owner_id or effective > p.starts_at and (p.included is null) <> (s.included is null) then effective end);
    if cut < p.ends_at then
      p.ends_at := greatest(cut, p.starts_at + interval '1 microsecond');
      p.cut := p.cut or cut is distinct from s.ended_at or s.status in ('canceled', 'incomplete_expired');    -- an end that is only planned may be taken back
    elsif not p.cut then
      new_end := least((select w.ends_at from meterbook.window_of(s, p.starts_at) w), s.ended_at);
      if p.starts_at >= s.starts_at and p.starts_at < s.ends_at and greatest(new_end, p.ends_at) > at    -- also the rest after a cut
         and not exists (select from meterbook.billing_period n where n.entity_id = p.entity_id and n.subscription_id = s.id and n.kind = 'dated'
                         and n.starts_at >= p.ends_at and n.starts_at < new_end) then
        p.ends_at := greatest(new_end, at);
      end if;
    end if;
    if p.entity_id = s.owner_id then
      select a.plan, a.seats, case when p.cut and a.included is not null then greatest(p.included, a.included) else a.included end,
             case when p.cut then greatest(p.refresh_per_day, a.refresh_per_day) else a.refresh_per_day end    -- a cut takes back nothing
      into p.plan, p.seats, p.included, p.refresh_per_day
      from meterbook.allowance_of(s.id, p.starts_at, p.ends_at) a;
    end if;
    update meterbook.billing_period b set ends_at = p.ends_at, moved = b.moved or p.ends_at <> b.ends_at, cut = p.cut, plan = p.plan, seats = p.seats, included = p.included,
      refresh_per_day = p.refresh_per_day, resting = s.status in ('unpaid', 'paused', 'incomplete')
    where b.entity_id = p.entity_id and b.id = p.id;
  end loop;
end $$;

create function meterbook.note_segment(s meterbook.subscription, known meterbook.subscription, effective timestamptz, said boolean) returns void
language plpgsql as $$
-- Plan and seats from an instant on; an owner's segments are theirs. Nothing is noted when nothing changed, unless the instant was `said`: what was
-- in force before it may be learned later, and then this is what it changed to. Where something else was
-- said of an instant after `effective`, the newest word holds from now on.
begin
  insert into meterbook.subscription_segment (owner_id, subscription_id, effective_at, plan, seats, included, refresh_per_day, noted_at)
  select s.owner_id, s.id, case when known.id is null and not said then s.begins_at else effective end,
         s.plan, s.seats, s.included, s.refresh_per_day, s.updated_at
  where (s.plan, s.seats, s.included, s.refresh_per_day) is distinct from
    (select (g.plan, g.seats, g.included, g.refresh_per_day) from meterbook.subscription_segment g
     where g.subscription_id = s.id and g.effective_at <= effective and (g.effective_at = effective or not said)
     order by g.effective_at desc, g.id desc limit 1);
  perform meterbook.hold_segment(s, s.updated_at);
end $$;

create function meterbook.hold_segment(s meterbook.subscription, at timestamptz) returns void
language plpgsql as $$
-- The last segment is what the subscription is by its newest word: from `at` on, where an older word was of a later instant.
begin
  insert into meterbook.subscription_segment (owner_id, subscription_id, effective_at, plan, seats, included, refresh_per_day, noted_at)
  select s.owner_id, s.id, greatest(at, g.effective_at), s.plan, s.seats, s.included, s.refresh_per_day, at
  from (select x.* from meterbook.subscription_segment x where x.subscription_id = s.id order by x.effective_at desc, x.id desc limit 1) g
  where (s.plan, s.seats, s.included, s.refresh_per_day) is distinct from (g.plan, g.seats, g.included, g.refresh_per_day);
end $$;

create function meterbook.keep_addressee(known meterbook.subscription) returns void
language sql as $$
  -- What a subscription was used for by the owner whom it leaves is billed where it was billed until now.
  update meterbook.billing_period p set stripe_customer = known.stripe_customer, stripe_subscription = known.stripe_subscription
  where p.entity_id = known.owner_id and p.subscription_id = known.id and p.state <> 'closed' and p.stripe_customer is null
$$;

create function meterbook.move_credits(from_entity bigint, to_entity bigint, at timestamptz) returns void
language plpgsql as $$
-- The spendable credits of a subscription that passes to another owner go with it: spent here, granted there, terms kept.
declare
  g record;
  moved bigint;
  ours  bigint[] := array(select c.id from meterbook.credit_grant c where c.entity_id in (from_entity, to_entity) order by c.entity_id, c.id for update);
begin
  for g in      -- one that is made at this moment is not ours, and stays
    select * from meterbook.grants_of(from_entity) x
    where x.id = any (ours) and x.remaining > 0 and (x.expires_at is null or x.expires_at > at) order by x.id
  loop
    insert into meterbook.credit_grant (entity_id, grant_key, cents, source, priority, expires_at, granted_at)
    values (to_entity, 'moved:' || from_entity || ':' || g.id, g.remaining, g.source, g.priority, g.expires_at, g.granted_at)
    on conflict do nothing returning id into moved;
    if moved is not null then
      insert into meterbook.credit_spend (entity_id, grant_id, moved_to, cents, at) values (from_entity, g.id, moved, g.remaining, at);
      perform meterbook.look_again(to_entity, g.expires_at) where g.expires_at > at;
    end if;
  end loop;
  perform meterbook.look_again(from_entity, at) where moved is not null;    -- its limit falls, also if another subscription goes on there
end $$;

create function meterbook.put_subscription(
  id text, owner text, plan text, plan_rank integer, seats integer, included numeric, refresh_per_day numeric, status text,
  starts_at timestamptz, ends_at timestamptz, interval_months integer, anchor timestamptz default null,
  cancel_at_period_end boolean default false, effective_at timestamptz default null,
  stripe_customer text default null, stripe_subscription text default null, at timestamptz default null, cancel_at timestamptz default null) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
#variable_conflict use_variable
declare
  moment    timestamptz := coalesce(meterbook.permitted(at), clock_timestamp());
  effective timestamptz := least(coalesce(effective_at, moment), moment);
  owner_id  bigint := meterbook.owner_entity(owner);
  known     meterbook.subscription;
  s         meterbook.subscription;
  affected  bigint[];
begin
  select b.* into known from meterbook.subscription b where b.id = put_subscription.id;
  affected := meterbook.lock_members_of(array_remove(array[known.owner_id, owner_id], null));
  perform meterbook.settle_due(affected, moment);
  perform from meterbook.subscription b where b.owner_id in (known.owner_id, owner_id) or b.id = put_subscription.id order by b.id for update;
  select b.* into known from meterbook.subscription b where b.id = put_subscription.id;
  -- What the clock has to open begins with what was in force until now: as if somebody had come by at each start. Locks in their order.
  if known.owner_id is not null then
    -- of both owners, also where it comes back to one whose cut period is still to be closed: before their credits, as a closer does
    perform from meterbook.billing_period b where b.entity_id in (known.owner_id, owner_id) and b.subscription_id = known.id and b.state = 'open'
    order by b.entity_id, b.id for no key update;
    perform meterbook.open_periods(array[known.owner_id], moment);
  end if;

  s.id := id; s.owner_id := owner_id; s.plan := plan; s.plan_rank := plan_rank; s.seats := seats;
  s.included := included; s.refresh_per_day := refresh_per_day; s.status := status;
  s.starts_at := starts_at; s.ends_at := ends_at; s.interval_months := interval_months; s.cancel_at_period_end := cancel_at_period_end;
  s.stripe_customer := coalesce(stripe_customer, known.stripe_customer);
  s.stripe_subscription := coalesce(stripe_subscription, known.stripe_subscription);
  s.updated_at := moment;
  s.cancelled_by_us := coalesce(known.cancelled_by_us, false);
  s.begins_at := case when known.owner_id is null then starts_at when known.owner_id <> owner_id then effective
    when starts_at >= known.starts_at then known.begins_at    -- also when it has passed to its owner since
    else least(known.begins_at, starts_at) end;
  s.anchor := coalesce(anchor, case
    when known.interval_months = interval_months
     and meterbook.months_after(known.anchor, meterbook.step_of(known.anchor, interval_months, starts_at) * interval_months) = starts_at
    then known.anchor end, starts_at);
  if known.status in ('unpaid', 'paused', 'incomplete') and status in ('active', 'trialing', 'past_due') then    -- windows that passed meanwhile never were
    s.begins_at := greatest(s.begins_at, (select w.starts_at from meterbook.window_of(s, moment) w));
  end if;
  s.ended_at := case
    when status in ('canceled', 'incomplete_expired') then case when known.status = status then known.ended_at else effective end
    when cancel_at is not null then cancel_at when cancel_at_period_end then ends_at end;

  insert into meterbook.subscription select s.*
  on conflict on constraint subscription_pkey do update set
    (owner_id, plan, plan_rank, seats, included, refresh_per_day, status, begins_at, starts_at, ends_at, anchor, interval_months,
     cancel_at_period_end, ended_at, stripe_customer, stripe_subscription, updated_at) =
    (s.owner_id, s.plan, s.plan_rank, s.seats, s.included, s.refresh_per_day, s.status, s.begins_at, s.starts_at, s.ends_at, s.anchor,
     s.interval_months, s.cancel_at_period_end, s.ended_at, s.stripe_customer, s.stripe_subscription, s.updated_at);

  if known.cancelled_by_us and not cancel_at_period_end and s.status not in ('canceled', 'incomplete_expired') then
    update meterbook.subscription b set cancel_at_period_end = true, ended_at = meterbook.term_end(s, moment) where b.id = s.id;   -- ours is still to be delivered
    s.cancel_at_period_end := true;
    s.ended_at := meterbook.term_end(s, moment);
  end if;
  if known.owner_id is null or s.status not in ('canceled', 'incomplete_expired') then    -- an end says when, not what was in force until then
    perform meterbook.note_segment(s, known, effective, effective_at is not null);
  end if;
  if known.owner_id <> owner_id then
    perform meterbook.keep_addressee(known);
    perform meterbook.move_credits(known.owner_id, owner_id, moment);
  end if;
  perform meterbook.amend_periods(s, known.owner_id, effective, moment);
  perform meterbook.open_periods(array_remove(array[owner_id, nullif(known.owner_id, owner_id)], null), moment);
  perform meterbook.settle_payers(affected, moment);
  perform meterbook.look_again(owner_id, moment);
end $$;

-- ------------------------------------------------------------------------------------------------------------------ organizations

create function meterbook.join_organization(the_entity bigint, the_actor bigint, the_role text, moment timestamptz) returns void
language plpgsql as $$
-- One organization a person: joining the same one again only changes the role, joining a second is refused.
declare present meterbook.member;
begin
  perform from meterbook.actor a where a.id = the_actor for no key update;
  select m.* into present from meterbook.member m where m.actor_id = the_actor and m.left_at is null;
  if present.organization_id = the_entity then
    update meterbook.member m set role = the_role
    where m.organization_id = the_entity and m.actor_id = the_actor and m.left_at is null and m.role <> 'owner';
    return;
  elsif present.organization_id is not null then
    raise exception using errcode = 'MB021', message = 'the user is already a member of another organization',
      hint = 'One organization a user: remove the membership there first.';
  end if;
  insert into meterbook.member (organization_id, actor_id, role, joined_at) values (the_entity, the_actor, the_role, moment);
end $$;

create function meterbook.put_organization(organization text, owner text, at timestamptz default null) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- Makes an organization known; its owner is its first member. Again: nothing changes (ownership has its own call).
declare
  moment   timestamptz := coalesce(meterbook.permitted(put_organization.at), clock_timestamp());
  owner_id bigint := meterbook.person(put_organization.owner);
  the_entity bigint;
begin
  insert into meterbook.billing_entity (kind, external_id) values ('organization', put_organization.organization) on conflict do nothing;
  the_entity := meterbook.entity_id_of('organization:' || put_organization.organization);
  perform meterbook.lock_members_of(array[the_entity], array[owner_id]);
  if exists (select from meterbook.organization o where o.entity_id = the_entity) then return; end if;
  insert into meterbook.organization (entity_id, owner_id, created_at) values (the_entity, owner_id, moment);
  perform meterbook.join_organization(the_entity, owner_id, 'owner', moment);
  perform meterbook.open_periods(array[the_entity], moment);
  perform meterbook.settle_payers(array[owner_id], moment);
end $$;

create function meterbook.add_member(organization text, person text, role text default 'member', at timestamptz default null) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
declare
  moment     timestamptz := coalesce(meterbook.permitted(add_member.at), clock_timestamp());
  the_entity bigint := meterbook.existing_organization(add_member.organization);
  the_actor  bigint := meterbook.person(add_member.person);
begin
  perform meterbook.lock_members_of(array[the_entity], array[the_actor]);
  perform meterbook.join_organization(the_entity, the_actor, add_member.role, moment);
  perform meterbook.settle_payers(array[the_actor], moment);
end $$;

create function meterbook.remove_member(organization text, person text, at timestamptz default null) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- What was recorded stays where it is; from now on the person's own subscription, or the person, pays.
declare
  moment     timestamptz := coalesce(meterbook.permitted(remove_member.at), clock_timestamp());
  the_entity bigint := meterbook.existing_organization(remove_member.organization);
  the_actor  bigint := meterbook.person(remove_member.person);
begin
  perform meterbook.lock_members_of(array[the_entity], array[the_actor]);
  if exists (select from meterbook.organization o where o.entity_id = the_entity and o.owner_id = the_actor) then
    raise exception using errcode = 'MB022', message = 'the owner of an organization can''t be removed',
      hint = 'Transfer the ownership first.';
  end if;
  update meterbook.member m set left_at = greatest(moment, m.joined_at)
  where m.organization_id = the_entity and m.actor_id = the_actor and m.left_at is null;
  if not found then
    raise exception using errcode = 'MB023', message = 'the user is not a member of this organization';
  end if;
  delete from meterbook.member_cap c where c.organization_id = the_entity and c.actor_id = the_actor;    -- a member's, not a stranger's
  perform meterbook.settle_payers(array[the_actor], moment);
end $$;

create function meterbook.transfer_ownership(organization text, person text) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
-- Changes who is asked, not one amount. The new owner must be a member; the old one stays, as an admin.
declare
  the_entity bigint := meterbook.existing_organization(transfer_ownership.organization);
  the_actor  bigint := meterbook.person(transfer_ownership.person);
begin
  perform from meterbook.billing_entity e where e.id = the_entity for no key update;
  perform from meterbook.organization o where o.entity_id = the_entity for no key update;
  perform from meterbook.member m where m.organization_id = the_entity and m.left_at is null order by m.id for no key update;
  perform meterbook.lock_members_of(array[the_entity]);
  if not exists (select from meterbook.member m where m.organization_id = the_entity and m.actor_id = the_actor and m.left_at is null) then
    raise exception using errcode = 'MB023', message = 'the user is not a member of this organization', hint = 'Add the member first.';
  end if;
  update meterbook.member m set role = case when m.actor_id = the_actor then 'owner' else 'admin' end
  where m.organization_id = the_entity and m.left_at is null and (m.role = 'owner' or m.actor_id = the_actor);
  update meterbook.organization o set owner_id = the_actor where o.entity_id = the_entity;
end $$;

create function meterbook.put_workspace(workspace text, payer text default null, at timestamptz default null) returns void
language plpgsql security definer set search_path = meterbook, pg_temp set lock_timeout = '5s' as $$
declare
  moment   timestamptz := coalesce(meterbook.permitted(put_workspace.at), clock_timestamp());
  payer_id bigint := case when put_workspace.payer is not null then meterbook.owner_entity(put_workspace.payer) end;
begin
  perform meterbook.settle_due(meterbook.actors_of(array[payer_id]), moment);
  insert into meterbook.workspace (external_id, payer_id) values (put_workspace.workspace, payer_id)
  on conflict (external_id) do update set payer_id = excluded.payer_id;
  if payer_id is not null then
    perform meterbook.open_periods(array[payer_id], moment);
  end if;
end $$;
