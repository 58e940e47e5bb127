"""Upgrades of the database schema, run by pbx.database whenever a store opens.

Each change of the tables adds one file to versions/: v0002_what_it_does.py, with `down_revision` naming the one
before it. A published file is never changed, and imports nothing of the engine, which goes on changing.
"""
