"""Bytes from elsewhere: what there is, fetching it whole, opening archives safely."""
