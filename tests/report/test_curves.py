import json

import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.report import curves
from jaxcxr.report.tables import Metric
from tests.report.pngs import saved_size

AUROC = Metric(name="auroc", title="AUROC", undefined="never")
MPJPE = Metric(name="mpjpe", title="MPJPE", undefined="never", unit="mm", higher=False)


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def run_records(steps=40, every=10, metric="auroc"):
    records = [{"step": 0, "kind": "stage", "name": "head"}]
    for step in range(1, steps + 1):
        loss, rate = 1 / step, 1e-3 * step
        records.append({"step": step, "kind": "train", "loss": loss, "learning_rate": rate})
        if step % every == 0:
            records.append({"step": step, "kind": "validation", metric: 0.5 + 0.01 * step})
    records.insert(21, {"step": 20, "kind": "stage", "name": "all"})
    return records


def test_curves_draw_what_was_logged(tmp_path):
    path = write(tmp_path / "metrics.jsonl", *run_records())
    figure = curves.curves_figure(path, AUROC)
    saved_size(figure, tmp_path / "report" / "curves.png")
    loss, score, rate = figure.axes
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), np.arange(1, 41))
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), 1 / np.arange(1, 41))
    np.testing.assert_array_equal(rate.lines[0].get_ydata(), 1e-3 * np.arange(1, 41))
    np.testing.assert_array_equal(score.lines[0].get_xdata(), [10, 20, 30, 40])
    np.testing.assert_allclose(score.lines[0].get_ydata(), [0.6, 0.7, 0.8, 0.9])
    assert "macro AUROC" in score.get_ylabel()
    assert score.get_legend().texts[0].get_text() == "best 0.9 at step 40"
    assert [text.get_text() for text in loss.texts] == ["head", "all"]
    boundaries = [line.get_xdata()[0] for line in loss.lines if line.get_linestyle() == ":"]
    assert boundaries == [0, 20]


def test_a_long_loss_is_smoothed_by_a_centred_mean(tmp_path):
    path = write(tmp_path / "metrics.jsonl", *run_records(100))
    raw, mean = curves.curves_figure(path, AUROC).axes[0].lines[:2]
    values = np.asarray(raw.get_ydata())
    assert len(values) == 100
    np.testing.assert_allclose(mean.get_ydata()[10], values[10:15].mean())
    assert mean.get_xdata()[10] == 13


def test_best_pose_error_is_the_smallest(tmp_path):
    path = write(tmp_path / "metrics.jsonl", *run_records(metric="mpjpe"))
    score = curves.curves_figure(path, MPJPE).axes[1]
    assert "MPJPE (mm)" in score.get_ylabel()
    assert score.get_legend().texts[0].get_text() == "best 0.6 at step 10"


def test_a_resumed_run_counts_the_later_record(tmp_path):
    path = write(
        tmp_path / "metrics.jsonl",
        {"step": 1, "kind": "train", "loss": 5.0},
        {"step": 2, "kind": "train", "loss": 9.0},
        {"step": 2, "kind": "train", "loss": 4.0},
        {"step": 3, "kind": "train", "loss": float("nan")},
    )
    with path.open("a") as file:
        file.write('{"step": 4, "kind": "tr')  # cut off by a kill
    loss, score, _ = curves.curves_figure(path, AUROC).axes
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [5, 4])
    assert [text.get_text() for text in score.texts] == ["no validation yet"]


def test_bad_metric_files_are_user_errors(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(UserError, match="no metrics at"):
        curves.curves_figure(path, AUROC)
    path.write_text("")
    with pytest.raises(UserError, match="holds no training loss yet"):
        curves.curves_figure(path, AUROC)
    path.write_text('{"step": 1, "kind": "train", "loss": 1.0}\nnonsense\n')
    with pytest.raises(UserError, match="line 2 is not a JSON object"):
        curves.curves_figure(path, AUROC)


def test_a_metric_that_was_not_logged_is_not_drawn(tmp_path):
    path = write(tmp_path / "metrics.jsonl", *run_records())
    score = curves.curves_figure(path, MPJPE).axes[1]
    assert [text.get_text() for text in score.texts] == ["no validation yet"]


def test_a_run_that_has_trained_no_step_has_no_curves(tmp_path):
    path = tmp_path / "metrics.jsonl"
    curves.write(tmp_path, AUROC)
    path.write_text('{"kind": "stage", "step": 0, "name": "a"}\n')
    curves.write(tmp_path, AUROC)
    assert not (tmp_path / "report").exists()
    with path.open("a") as file:
        file.write('{"kind": "train", "step": 1, "loss": 1.0, "learning_rate": 0.1}\n')
    curves.write(tmp_path, AUROC)
    assert (tmp_path / "report" / "curves.png").read_bytes().startswith(b"\x89PNG")
