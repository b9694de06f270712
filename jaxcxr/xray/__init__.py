"""Detects findings in chest X-rays."""
