-- name: record_usage
-- One call, one round trip, all or nothing; one row an entry, in the order of the call: callers of one group are told apart by it.
select n, key::text, outcome, entity, period, belongs_to, amount, recorded_at
from meterbook.record_usage(
  keys => %(keys)s::uuid[], fingerprints => %(fingerprints)s::uuid[], actors => %(actors)s::text[], sources => %(sources)s::text[],
  descriptions => %(descriptions)s::text[], amounts => %(amounts)s::numeric[], categories => %(categories)s::text[],
  occurred_ats => %(occurred_ats)s::timestamptz[], workspaces => %(workspaces)s::text[], workflows => %(workflows)s::text[],
  executions => %(executions)s::text[], source_references => %(source_references)s::text[], lines => %(lines)s::text[],
  metadatas => %(metadatas)s::jsonb[], entities => %(entities)s::text[], periods => %(periods)s::bigint[],
  payer_ids => %(payer_ids)s::bigint[], payer_periods => %(payer_periods)s::bigint[], payers => %(payers)s::text[], at => %(at)s::timestamptz,
  note_conflicts => %(note_conflicts)s, key_wait_ms => %(key_wait_ms)s)
order by n

-- name: record_cumulative
-- Keeps the maximum of a running total.
select n, key::text, outcome, entity, period, belongs_to, amount, recorded_at
from meterbook.record_cumulative(
  request => %(request)s, actor => %(actor)s, total => %(total)s::numeric, source => %(source)s, description => %(description)s,
  category => %(category)s::text, occurred_at => %(occurred_at)s::timestamptz, workspace => %(workspace)s, workflow => %(workflow)s,
  execution => %(execution)s, source_reference => %(source_reference)s, metadata => %(metadata)s::jsonb, entity => %(entity)s,
  payer_id => %(payer_id)s::bigint, payer_name => %(payer)s, at => %(at)s::timestamptz)

-- name: find_first_flush
-- What a running total is bound to.
select f.actor, f.category, f.source, f.description, f.total, f.entity, f.workspace from meterbook.first_flush(%(request)s) f

-- name: correct_entry
-- A new row that points at the one it corrects.
select n, key::text, outcome, entity, period, belongs_to, amount, recorded_at
from meterbook.correct_entry(entry => %(entry)s::uuid, amount => %(amount)s::numeric, reason => %(reason)s, key => %(key)s::uuid,
                             at => %(at)s::timestamptz)

-- name: attribute
-- First contact, or the clock has moved on: actors, payers and periods are made known. A short transaction of its own.
select meterbook.attribute(actors => %(actors)s::text[], entities => %(entities)s::text[], workspaces => %(workspaces)s::text[],
                           at => %(at)s::timestamptz, lock_wait_ms => %(lock_wait_ms)s)

-- name: resolve
-- Who would pay now for this actor's work, and in which period.
select outcome, entity, entity_id, period_id from meterbook.resolve(actor => %(actor)s, workspace => %(workspace)s, at => %(at)s::timestamptz)

-- name: note_conflicts
-- For a call in the caller's transaction, which is going to be rolled back.
select meterbook.note_conflicts(
  keys => %(keys)s::uuid[], fingerprints => %(fingerprints)s::uuid[], actors => %(actors)s::text[], categories => %(categories)s::text[],
  sources => %(sources)s::text[], descriptions => %(descriptions)s::text[], amounts => %(amounts)s::numeric[],
  entities => %(entities)s::text[], periods => %(periods)s::bigint[], at => %(at)s::timestamptz)

-- name: list_first_said
-- What the first writers of some keys said; a period is the one it belongs to.
select s.key::text, s.actor, s.category, s.source, s.description, s.amount, s.entity, s.period, s.corrects::text
from meterbook.first_said(%(keys)s::uuid[]) s
