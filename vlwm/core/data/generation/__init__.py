"""Generate sessions from a City: plans, frames, files."""
