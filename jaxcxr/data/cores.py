"""Counts the cores of this machine."""

import os


def usable_cores() -> int:
    """Counts the cores that this process may use: on Linux those it is bound to."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
