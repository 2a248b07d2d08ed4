"""Keep a city as 1 km tiles in a store, and read what a window of it needs."""
