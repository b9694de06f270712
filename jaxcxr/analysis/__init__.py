"""What is done with a finished run: figures and reports."""
