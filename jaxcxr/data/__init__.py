"""Data: sources (TFDS builders), preparation, and the one grain pipeline."""
