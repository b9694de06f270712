"""A grid of rows x seeds x data sets, resumable, and one table for each data set.

A study file has `get_config(ARG)`, as every config file, which for the name of a data set returns
the config that all rows start from, and `get_study()`, which returns a `Study`. Each run is the
ordinary trainer in a process of its own, so that memory stays flat and a crash costs one run, and
all processes share one cache of compiled programs. A finished run is not done again; an
interrupted one goes on from its last checkpoint; one that fails is reported and the rest goes on.
`--table` prints the table of what is finished at any time.

WORKDIR holds `DATA/ROW/seed_N/`, each an ordinary workdir with `config.json`, besides `log.txt`
(the screen of the run) and `result.json`; `table_DATA.csv` and `table_DATA.md`; and where poses are
lifted, `poses.csv` and `poses.md`, with P-MPJPE, MPJVE and intervals over motions.
"""

from jaxcxr.study.grid import Context, Study

__all__ = ["Context", "Study"]
