"""Plan vehicle trajectories through a city."""
