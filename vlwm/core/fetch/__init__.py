"""Download data and weights: what there is, whole files, safe archives."""
