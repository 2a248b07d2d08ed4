"""Read one city file after another, in this process or in workers that keep its place in order."""
