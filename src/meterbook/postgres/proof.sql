-- name: list_differences
-- Every derived figure against the entries; a row for each that differs.
select d.claim, d.entity_id, e.kind || ':' || coalesce(e.external_id, '#' || e.id) as entity, d.period_id, d.grain, d.part, d.detail,
       d.ledger_amount, d.derived_amount, d.ledger_entries, d.derived_entries
from meterbook.differences(
  (select b.id from meterbook.billing_entity b where b.kind = %(kind)s and b.external_id = %(external_id)s)) d
left join meterbook.billing_entity e on e.id = d.entity_id
where %(kind)s::text is null or exists (select from meterbook.billing_entity b where b.kind = %(kind)s and b.external_id = %(external_id)s)

-- name: count_unprovable
-- Entries whose fingerprint can't be recomputed: who acted was erased.
select meterbook.unprovable((select b.id from meterbook.billing_entity b where b.kind = %(kind)s and b.external_id = %(external_id)s))

-- name: rebuild
select meterbook.rebuild((select b.id from meterbook.billing_entity b where b.kind = %(kind)s and b.external_id = %(external_id)s))
