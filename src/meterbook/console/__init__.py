"""The console door: pages for people, made on the server with Jinja2. htmx spares reloads; every page works without JavaScript.

May import what lies below (book, operations, core, settings), no other door. Start with `app.py`; the reference is
docs/reference/console.md.
Needs the extra `meterbook[server]`. Third parties' files in static/: htmx 2.0.11 from npm (0BSD, licence beside it).
"""
