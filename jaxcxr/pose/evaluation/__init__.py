"""Errors of 2D and 3D poses, by the protocols of the field."""
