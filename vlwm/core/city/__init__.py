"""Readers of city models; every one yields the same City."""
