"""Motions to look at: a 3D viewer as a page, GIF and MP4."""
