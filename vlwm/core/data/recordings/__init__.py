"""Recordings made elsewhere: points and poses of a moving sensor, turned into session folders."""
