-- name: claim_delivery
select * from meterbook.claim_deliveries(%(without)s::text[], 1, make_interval(secs => %(lease_s)s), %(at)s::timestamptz)

-- name: begin_step
select meterbook.begin_step(%(id)s, %(lease)s, %(step)s, %(round)s, %(invoice)s, %(item)s, make_interval(secs => %(lease_s)s), %(at)s::timestamptz)

-- name: complete_delivery
select meterbook.complete_delivery(%(id)s, %(lease)s, %(note)s, %(sent)s::jsonb, %(at)s::timestamptz)

-- name: postpone_delivery
select meterbook.postpone_delivery(%(id)s, %(lease)s, %(note)s, %(delay)s, %(is_stuck)s, %(at)s::timestamptz)

-- name: bury_delivery
select meterbook.bury_delivery(%(id)s, %(lease)s, %(note)s, %(at)s::timestamptz)

-- name: redrive_delivery
select meterbook.redrive_delivery(%(id)s, %(at)s::timestamptz, %(invoice_is_gone)s)

-- name: sum_seats_paid
select meterbook.seats_paid(%(subscription)s, %(since)s::timestamptz)
