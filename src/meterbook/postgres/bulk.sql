-- name: list_parties
-- Who pays for each party, where its entries go, and the moment all of them are recorded at.
select n, actor_id, entity_id, home_id, home_since, home_starts_at, home_ends_at, moment
from meterbook.parties_of(actors => %(actors)s::text[], workspaces => %(workspaces)s::text[], entities => %(entities)s::text[],
                          payer_ids => %(payer_ids)s::bigint[], at => %(at)s::timestamptz)

-- name: bound_waits
-- A key that another writer holds is waited for as long as record_usage would.
set local lock_timeout = '5s'

-- name: may_copy
-- A writer may not, an importer and the owner may.
select has_table_privilege('meterbook.event_key', 'insert') and has_table_privilege('meterbook.usage_log', 'insert')
   and has_table_privilege('meterbook.usage_delta', 'insert') and has_table_privilege('meterbook.entry_metadata', 'insert')

-- name: list_known_keys
-- Which of these keys took effect already.
select replace(k.key::text, '-', '') from meterbook.event_key k where k.key = any (%(keys)s::uuid[])

-- name: copy_keys
copy meterbook.event_key (key, fingerprint, entity_id, period_id, amount, recorded_at) from stdin

-- name: copy_entries
-- The rows themselves; what is NULL for all that goes home (belongs_to, corrects, reason) is left out.
copy meterbook.usage_log (entity_id, recorded_at, key, period_id, day, actor_id, occurred_at, amount, category, source, description,
  workspace, workflow, execution, source_reference, line) from stdin

-- name: copy_metadata
copy meterbook.entry_metadata (entity_id, key, recorded_at, metadata) from stdin

-- name: copy_deltas
copy meterbook.usage_delta (entity_id, period_id, day, actor_id, source, description, amount, entries, digest, keys, recorded_at) from stdin
