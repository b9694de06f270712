"""The chest X-ray task: multi-label detection of findings."""
