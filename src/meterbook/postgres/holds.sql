-- name: lock_and_read_gate
select meterbook.lock_and_read_gate(%(entity_id)s::bigint, %(actors)s::text[], %(workspaces)s::text[], %(hold_keys)s::text[], %(at)s::timestamptz)

-- name: find_holds
-- Holds as they stand at this moment: one that has run out is expired, whether or not somebody has noticed.
select * from meterbook.known_holds(%(hold_keys)s::text[], %(at)s::timestamptz)

-- name: list_holds
-- Newest first.
select h.hold_key, e.kind || ':' || coalesce(e.external_id, '#' || e.id), coalesce(a.external_id, '#' || a.id), h.workspace, h.amount, h.granted_at, h.expires_at,
       case when h.state = 'active' and h.expires_at <= coalesce(%(at)s::timestamptz, clock_timestamp()) then 'expired' else h.state end, h.ended_at, h.settled
from meterbook.hold h join meterbook.billing_entity e on e.id = h.entity_id join meterbook.actor a on a.id = h.actor_id
where h.entity_id = %(entity_id)s order by h.granted_at desc, h.hold_key limit %(rows)s

-- name: write_holds
select meterbook.write_holds(%(entity_id)s::bigint, %(hold_keys)s::text[], %(actor_ids)s::bigint[], %(workspaces)s::text[], %(amounts)s::numeric[], %(ttls)s::integer[],
                             %(at)s::timestamptz)

-- name: lock_hold
select meterbook.lock_hold(%(hold_key)s)

-- name: end_holds
-- In the order of the call.
select outcome, entity_id, actor, workspace, first_key::text, first_settled
from meterbook.end_holds(%(hold_keys)s::text[], %(hows)s::text[], %(settle_keys)s::uuid[], %(settleds)s::numeric[], coalesce(%(at)s::timestamptz, clock_timestamp()))
order by n
