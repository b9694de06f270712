"""What both tasks share: preparation, shards, the grain pipeline, tables."""
