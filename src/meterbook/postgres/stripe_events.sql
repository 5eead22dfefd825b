-- name: store_event
-- Kept once; the state that it has.
select meterbook.store_stripe_event(%(id)s, %(kind)s, %(subject)s, %(created_at)s, %(body)s, %(at)s::timestamptz)

-- name: lock_event
select meterbook.lock_stripe_event(%(id)s)

-- name: finish_event
select meterbook.finish_stripe_event(%(id)s, %(state)s, %(note)s, %(at)s::timestamptz)

-- name: erase_event
select meterbook.erase_stripe_event(%(id)s)

-- name: dismiss_event
-- The state that it had.
select meterbook.dismiss_stripe_event(%(id)s, %(why)s, %(at)s::timestamptz)

-- name: find_event_body
select meterbook.stripe_event_body(%(id)s)

-- name: list_events
-- Newest first.
select * from meterbook.stripe_events(%(state)s, %(rows)s::integer)

-- name: list_unsettled_events
-- In Stripe's order.
select meterbook.unsettled_stripe_events()

-- name: lock_subscription
select * from meterbook.lock_stripe_subscription(%(id)s, %(event_at)s, %(named)s::text)

-- name: note_subscription
select meterbook.note_stripe_subscription(%(id)s, %(seen_at)s, %(seen_rank)s::smallint, %(seen_event)s, %(owner_said)s, %(monthly_price)s::numeric)

-- name: disown_cancellation
select meterbook.disown_cancellation(%(subscription)s)

-- name: tell_cancellation_again
select meterbook.tell_cancellation_again(%(subscription)s, %(at)s::timestamptz)

-- name: note_past_terms
select meterbook.note_past_terms(%(subscription)s, %(plan)s, %(seats)s::integer, %(included)s::numeric, %(refresh_per_day)s::numeric, %(is_entitled)s,
  %(starts_at)s, %(ends_at)s, %(interval_months)s::integer, %(anchor)s, %(effective_at)s, %(at)s::timestamptz)

-- name: note_invoiced_period
select meterbook.note_invoiced_period(%(id)s, %(starts_at)s, %(ends_at)s, %(at)s::timestamptz)

-- name: end_subscription
select meterbook.end_stripe_subscription(%(id)s, %(ended_at)s, %(at)s::timestamptz)

-- name: organization_is_known
select meterbook.organization_is_known(%(organization)s)

-- name: user_is_known
select meterbook.user_is_known(%(user)s)

-- name: list_owners
select meterbook.owners_at_stripe(%(subscription)s::text, %(customer)s::text)

-- name: list_debtors
select meterbook.debtors_of_invoice(%(invoice)s)

-- name: block
select meterbook.block_by_stripe(%(entity_id)s, %(reason)s, %(reference)s, %(event)s, %(at)s::timestamptz)

-- name: settle
select meterbook.settle_at_stripe(%(reference)s, %(outcome)s, %(settled_at)s)

-- name: tell_proration
select meterbook.tell_proration(%(entity_id)s, %(invoice)s, %(cents)s, %(at)s::timestamptz)
