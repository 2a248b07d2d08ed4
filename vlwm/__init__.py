"""vlwm: from a real city to an occupancy world model whose numbers can be trusted."""

__version__ = "0.1.0"
