"""Read 3D Tiles: the tree of tiles, b3dm and glTF."""
