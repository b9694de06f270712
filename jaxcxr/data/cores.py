"""How many processes or threads of this machine may work at once."""

import os


def usable_cores() -> int:
    """Cores that this process may use: those it is bound to, where the system can say (Linux)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
