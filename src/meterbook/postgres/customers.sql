-- name: put_subscription
-- What a subscription says now, with the periods that follow from it.
select meterbook.put_subscription(
  id => %(id)s, owner => %(owner)s, plan => %(plan)s, plan_rank => %(plan_rank)s::integer, seats => %(seats)s::integer,
  included => %(included)s::numeric, refresh_per_day => %(refresh_per_day)s::numeric, status => %(status)s,
  starts_at => %(starts_at)s::timestamptz, ends_at => %(ends_at)s::timestamptz, interval_months => %(interval_months)s::integer,
  anchor => %(anchor)s::timestamptz, cancel_at_period_end => %(cancel_at_period_end)s, effective_at => %(effective_at)s::timestamptz,
  stripe_customer => %(stripe_customer)s, stripe_subscription => %(stripe_subscription)s, at => %(at)s::timestamptz, cancel_at => %(cancel_at)s::timestamptz)

-- name: set_seats
-- What became of it: told, or why Stripe can't be.
select meterbook.set_seats(%(subscription)s, %(seats)s::integer, %(contracts)s::text[], %(at)s::timestamptz)

-- name: put_organization
select meterbook.put_organization(organization => %(organization)s, owner => %(owner)s, at => %(at)s::timestamptz)

-- name: add_member
select meterbook.add_member(organization => %(organization)s, person => %(user)s, role => %(role)s, at => %(at)s::timestamptz)

-- name: remove_member
select meterbook.remove_member(organization => %(organization)s, person => %(user)s, at => %(at)s::timestamptz)

-- name: transfer_ownership
select meterbook.transfer_ownership(organization => %(organization)s, person => %(user)s)

-- name: put_workspace
select meterbook.put_workspace(workspace => %(workspace)s, payer => %(payer)s, at => %(at)s::timestamptz)

-- name: delete_user
select meterbook.delete_user(person => %(user)s, at => %(at)s::timestamptz)

-- name: delete_organization
select meterbook.delete_organization(organization => %(organization)s, at => %(at)s::timestamptz)
