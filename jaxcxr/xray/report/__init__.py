"""The report of an X-ray run: its page, its figures and its tables."""
