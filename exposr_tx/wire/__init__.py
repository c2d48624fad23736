"""Protocols without I/O: bytes in, events out; no reactor, clock or transport under it."""
