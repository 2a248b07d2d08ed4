"""Presets by name, in the users' own config vocabulary; read as data, never executed."""
