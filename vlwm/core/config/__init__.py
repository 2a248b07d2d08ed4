"""The configuration: schema, users' files read as data, foreign keys."""
