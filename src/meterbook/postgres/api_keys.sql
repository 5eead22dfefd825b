-- name: make_key
-- Gives its id.
select meterbook.make_api_key(%(prefix)s, %(digest)s, %(name)s, %(scopes)s::text[], %(by_whom)s, %(expires_at)s::timestamptz, %(replaces)s::bigint,
                              %(at)s::timestamptz)

-- name: end_key
-- Now, or at a time.
select meterbook.end_api_key(%(id)s, %(ends_at)s::timestamptz, %(at)s::timestamptz)

-- name: find_key
-- With its digest, for who has to know a key again; expired and revoked ones too.
select id, prefix, name, scopes, created_at, created_by, expires_at, revoked_at, last_used_at, replaces, digest from meterbook.find_api_key(%(prefix)s)

-- name: note_use
select meterbook.note_api_key_use(%(id)s, %(at)s::timestamptz)

-- name: list_keys
-- Newest first, ended ones too.
select id, prefix, name, scopes, created_at, created_by, expires_at, revoked_at, last_used_at, replaces from meterbook.api_key order by id desc

-- name: begin_act
select meterbook.begin_act(%(by_whom)s, %(act)s, %(subject)s, %(said)s::jsonb, %(request)s, %(at)s::timestamptz)

-- name: end_act
select meterbook.end_act(%(id)s, %(outcome)s, %(code)s, %(at)s::timestamptz)

-- name: list_acts
-- Newest first, from below an id on.
select l.id, l.at, l.by_whom, l.act, d.subject, d.said, l.request, o.outcome, o.code, o.at as ended_at
from meterbook.act_log l join meterbook.act_detail d on d.act_id = l.id left join meterbook.act_outcome o on o.act_id = l.id
where (%(before)s::bigint is null or l.id < %(before)s::bigint) and (%(subject)s::text is null or d.subject = %(subject)s::text)
order by l.id desc limit %(rows)s::integer

-- name: read_gauges
select * from meterbook.ledger_gauges(%(at)s::timestamptz)

-- name: answers
-- Whether the database answers at all.
select 1
