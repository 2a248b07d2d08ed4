"""Readers of city files: OBJ, CityGML, 3D Tiles. Each yields feature batches."""
