"""Arrays only: frames, meshes, the voxel grid, voxelisation. Knows no city format and no torch."""
