"""The dashboard over a run folder; never imports torch."""
