"""The report of a pose run: its page and its figures."""
