"""Shows motions: a 3D viewer as a page, GIF and MP4."""
