"""Page, tables and figures of a pose run."""
