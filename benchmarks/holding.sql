-- name: make_counter
-- The least that a hold can be: one row with a sum, which forgets whose it is, when it ends, and what was used meanwhile.
create table counter (id integer primary key, held numeric not null, most numeric not null);
insert into counter values (1, 0, 1000000000)

-- name: hold_by_counter
update counter set held = held + %(amount)s where id = 1 and held + %(amount)s <= most
