-- name: lock_gate
select meterbook.lock_gate(%(entity_id)s, coalesce(%(at)s::timestamptz, clock_timestamp()))

-- name: find_hold
-- One hold as it stands at this moment: one that has run out is expired, whether or not somebody has noticed.
select h.hold_key, e.kind || ':' || coalesce(e.external_id, '#' || e.id), coalesce(a.external_id, '#' || a.id), h.workspace, h.amount, h.granted_at, h.expires_at,
       case when h.state = 'active' and h.expires_at <= coalesce(%(at)s::timestamptz, clock_timestamp()) then 'expired' else h.state end, h.ended_at, h.settled
from meterbook.hold h join meterbook.billing_entity e on e.id = h.entity_id join meterbook.actor a on a.id = h.actor_id
where h.hold_key = %(hold_key)s

-- name: list_holds
-- Newest first.
select h.hold_key, e.kind || ':' || coalesce(e.external_id, '#' || e.id), coalesce(a.external_id, '#' || a.id), h.workspace, h.amount, h.granted_at, h.expires_at,
       case when h.state = 'active' and h.expires_at <= coalesce(%(at)s::timestamptz, clock_timestamp()) then 'expired' else h.state end, h.ended_at, h.settled
from meterbook.hold h join meterbook.billing_entity e on e.id = h.entity_id join meterbook.actor a on a.id = h.actor_id
where h.entity_id = %(entity_id)s order by h.granted_at desc, h.hold_key limit %(rows)s

-- name: grant_hold
select meterbook.grant_hold(%(hold_key)s, %(entity_id)s, %(actor_id)s, %(workspace)s, %(amount)s::numeric, make_interval(secs => %(ttl_s)s),
                            coalesce(%(at)s::timestamptz, clock_timestamp()))

-- name: end_hold
select outcome, entity, entity_id, actor, workspace
from meterbook.end_hold(%(hold_key)s, %(how)s, %(settle_key)s::uuid, %(settled)s::numeric, coalesce(%(at)s::timestamptz, clock_timestamp()))
