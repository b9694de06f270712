"""Adds a record to the metrics of findings, writes every table that shows them, prints its paths.

Started as a process of its own, since tables are made from the records when they are imported.
"""

import pathlib
import sys

import numpy as np

from jaxcxr.statistics import operating
from jaxcxr.xray.evaluation import xray_metrics

NAME = "predictive_value"
CLASSES = ("Mass", "Edema", "Hernia")


def main(out: pathlib.Path) -> None:
    record = xray_metrics.XrayMetric(
        name=NAME, title="Positive", brief="Pos.", page="predictive value", calibrated=True,
        basis=xray_metrics.RATES, measure=operating.ppv, groups="brief", compared=True,
        undefined="nothing predicted positive",
    )
    xray_metrics.METRICS = (*xray_metrics.METRICS, record)
    from jaxcxr.xray.evaluation import calibration_fit, compare_xrays, metrics_table, subgroups
    from jaxcxr.xray.evaluation.compare_xrays import Compared, Model
    from jaxcxr.xray.report import xray_page

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (80, 3))
    scores = np.clip(0.5 * labels + 0.5 * rng.random((80, 3)), 0.01, 0.99)
    scores[:, 2] *= 0.1  # of this class nothing reaches the threshold
    patients = tuple(f"p{i // 2}" for i in range(80))
    calibration = calibration_fit.fit(labels, scores, CLASSES, method="identity")
    entries = [
        vars(entry) | {"threshold": 0.5, "thresholds": {}} for entry in calibration.classes
    ]
    calibration = type(calibration)(
        tuple(type(calibration.classes[0])(**entry) for entry in entries), {}
    )
    result = metrics_table.score(labels, scores, CLASSES, patients, 50, calibration=calibration)
    metrics_table.write(result, out)
    found = scores >= 0.5
    rows = subgroups.rows(
        labels, scores, CLASSES, patients, {"sex": np.array(["F", "M"] * 40)}, found, 50
    )
    subgroups.write(rows, out)
    models = tuple(Model(n, (n,), scores[None], scores[None], found[None]) for n in "AB")
    compared = compare_xrays.compare(Compared(labels, CLASSES, patients, models, {}), 50)
    texts = {
        "screen": metrics_table.to_text(result), "brief": metrics_table.to_text(result, brief=True),
        "subgroups": subgroups.to_text(rows),
        "subgroups_brief": subgroups.to_text(rows, brief=True),
        "compare": str(compare_xrays.lines(compared)),
        "compare_rows": str(compare_xrays.rows(compared)),
        "page": str(list(xray_page._findings(result))),
        "page_subgroups": str(list(xray_page._subgroups(out / "subgroups.csv"))),
    }
    for name, text in texts.items():
        (out / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
