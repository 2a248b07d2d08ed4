"""Tell where this machine is rented and what outlives it."""
