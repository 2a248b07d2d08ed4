"""Readers of recordings, one module a source; each yields a `Recording`."""
