"""The HTTP door: routes, wire types, errors as problem documents, keys and their scopes. Start with `app.py`.

The reference is docs/reference/http.md.
May import what lies below (book, operations, core, settings), no other door. Needs the extra `meterbook[server]`.
"""
