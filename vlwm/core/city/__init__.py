"""Read city models into one City: triangles in metres, terrain, roads."""
