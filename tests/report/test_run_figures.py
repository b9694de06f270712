import json
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
from sklearn import metrics as sk

from jaxcxr.errors import UserError
from jaxcxr.pose.report import pose_figures
from jaxcxr.report import canvas, run_figures
from jaxcxr.xray.report import xray_figures


def png_size(path):
    """(width, height) from the PNG's header, after decoding the whole file once."""
    assert cv2.imread(str(path)) is not None
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def written_size(figure, path):
    width, height = np.rint(figure.get_size_inches() * canvas.DPI).astype(int)
    assert png_size(path) == (width, height)
    assert not list(path.parent.glob("*.partial"))


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
    out = run_figures.curves(path, tmp_path / "report" / "curves.png")
    figure = run_figures.curves_figure(path)
    written_size(figure, out)
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
    raw, mean = run_figures.curves_figure(path).axes[0].lines[:2]
    values = np.asarray(raw.get_ydata())
    assert len(values) == 100
    np.testing.assert_allclose(mean.get_ydata()[10], values[10:15].mean())
    assert mean.get_xdata()[10] == 13


def test_best_pose_error_is_the_smallest(tmp_path):
    path = write(tmp_path / "metrics.jsonl", *run_records(metric="mpjpe"))
    score = run_figures.curves_figure(path).axes[1]
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
    loss, score, _ = run_figures.curves_figure(path).axes
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [5, 4])
    assert [text.get_text() for text in score.texts] == ["no validation yet"]


def test_bad_metric_files_are_user_errors(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(UserError, match="no metrics at"):
        run_figures.curves(path, tmp_path / "out.png")
    path.write_text("")
    with pytest.raises(UserError, match="holds no training loss yet"):
        run_figures.curves(path, tmp_path / "out.png")
    path.write_text('{"step": 1, "kind": "train", "loss": 1.0}\nnonsense\n')
    with pytest.raises(UserError, match="line 2 is not a JSON object"):
        run_figures.curves(path, tmp_path / "out.png")
    write(path, *run_records())
    with pytest.raises(UserError, match=r"no validation metric 'auc'; logged: auroc"):
        run_figures.curves(path, tmp_path / "out.png", metric="auc")
    assert not (tmp_path / "out.png").exists()


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (50, 4))
    labels[:, 1] = np.minimum(labels[:, 1], 0)
    labels[:, 3] = -1
    return labels, rng.uniform(size=(50, 4)), ("Mass", "Hernia", "Pleural_Thickening", "Edema")


def test_roc_curves_are_scikit_learns(tmp_path, predictions):
    labels, scores, classes = predictions
    figure = xray_figures.roc_figure(labels, scores, classes)
    written_size(figure, run_figures.roc(labels, scores, classes, tmp_path / "roc.png"))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Mass", "Hernia", "Pleural Thickening", "Edema"]
    for i in (0, 2):
        known = labels[:, i] >= 0
        false_positive, true_positive, _ = sk.roc_curve(labels[known, i], scores[known, i])
        line = figure.axes[i].lines[-1]
        np.testing.assert_array_equal(line.get_xdata(), false_positive)
        np.testing.assert_array_equal(line.get_ydata(), true_positive)
        auroc = sk.roc_auc_score(labels[known, i], scores[known, i])
        assert f"AUROC {auroc:.3f}" in figure.axes[i].texts[0].get_text()
    assert figure.axes[1].texts[0].get_text().startswith("n/a\nonly negatives")
    assert figure.axes[3].texts[0].get_text().startswith("n/a\nno known label")
    assert not figure.axes[1].lines
    assert "over 2 of 4 classes" in figure.get_suptitle()


def test_roc_without_any_defined_class(tmp_path):
    out = run_figures.roc(np.ones((3, 1)), np.zeros((3, 1)), ("Mass",), tmp_path / "roc.png")
    assert min(png_size(out)) > 300
    assert "n/a over 0 of 1" in xray_figures.roc_figure(
        np.ones((3, 1)), np.zeros((3, 1)), ("Mass",)
    ).get_suptitle()


@pytest.mark.parametrize("count", [1, 5])
def test_samples_show_images_labels_and_scores(tmp_path, predictions, count):
    labels, scores, classes = predictions
    labels, scores = labels[:count], scores[:count]
    images = np.random.default_rng(1).integers(0, 256, (count, 16, 12), np.uint8)
    figure = xray_figures.samples_figure(images, labels, scores, classes)
    out = run_figures.samples(images[..., None], labels, scores, classes, tmp_path / "samples.png")
    written_size(figure, out)
    assert len(figure.axes) == 2 * count
    for i in range(count):
        picture, bars = figure.axes[2 * i], figure.axes[2 * i + 1]
        np.testing.assert_array_equal(picture.images[0].get_array(), images[i])
        order = np.argsort(scores[i])
        widths = [patch.get_width() for patch in bars.patches]
        np.testing.assert_allclose(widths, scores[i][order])
        names = [text.get_text() for text in bars.get_yticklabels()]
        assert names == [classes[k].replace("_", " ") for k in order]
        weights = [text.get_fontweight() == "bold" for text in bars.get_yticklabels()]
        assert weights == [labels[i, k] == 1 for k in order]


def test_samples_never_hide_a_true_finding():
    labels = np.zeros((1, 12), int)
    labels[0, 11] = 1
    scores = np.linspace(0.9, 0.1, 12)[None]
    classes = [f"c{i}" for i in range(12)]
    bars = xray_figures.samples_figure(np.zeros((1, 8, 8)), labels, scores, classes).axes[1]
    names = [text.get_text() for text in bars.get_yticklabels()]
    assert names == ["c11", "c4", "c3", "c2", "c1", "c0"]


PARENTS = (-1, 0, 1, 1)


def test_skeletons_stand_upright_with_every_bone(tmp_path):
    truth = np.array([[[0, 0, 3000], [0, -500, 3000], [-200, -400, 2900], [200, -400, 3100.0]]] * 4)
    pred = truth + np.array([30.0, 0, 40])
    figure = pose_figures.skeletons_figure(pred, truth, PARENTS)
    written_size(figure, run_figures.skeletons(pred, truth, PARENTS, tmp_path / "skeletons.png"))
    assert len(figure.axes) == 4
    axes = figure.axes[0]
    assert axes.get_title() == "pose 1: 50 mm"
    bones = [np.array(line.get_data_3d()) for line in axes.lines]
    assert len(bones) == 2 * (3 + 1)  # three bones and the joints, twice
    # Camera (x, y down, z forward) becomes (x, forward, up): the second joint is 500 mm higher.
    np.testing.assert_allclose(bones[0], [[0, 0], [3000, 3000], [0, 500]])
    np.testing.assert_allclose(bones[4], [[30, 30], [3040, 3040], [0, 500]])
    spans = [np.ptp(getattr(axes, f"get_{name}lim")()) for name in "xyz"]
    np.testing.assert_allclose(spans, spans[0])
    titled = pose_figures.skeletons_figure(pred[:1], truth[:1], PARENTS, ["walking 7"])
    assert titled.axes[0].get_title() == "walking 7: 50 mm"


def test_joint_errors(tmp_path):
    errors, names = np.array([10.0, np.nan, 30.0]), ("hip", "left_knee", "head")
    figure = pose_figures.joint_errors_figure(errors, names)
    written_size(figure, run_figures.joint_errors(errors, names, tmp_path / "joints.png"))
    axes = figure.axes[0]
    assert [patch.get_width() for patch in axes.patches] == [10, 0, 30]
    assert [text.get_text() for text in axes.texts] == ["10.0", "n/a", "30.0"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["hip", "left knee", "head"]
    assert axes.lines[0].get_xdata()[0] == 20
    assert axes.yaxis_inverted()


def test_wrong_shapes_are_named(predictions):
    labels, scores, classes = predictions
    with pytest.raises(ValueError, match=r"images \[0, 8, 8\]"):
        xray_figures.samples_figure(np.zeros((0, 8, 8)), labels[:0], scores[:0], classes)
    with pytest.raises(ValueError, match=r"both be \[examples, 3\]"):
        xray_figures.roc_figure(labels, scores, classes[:3])
    with pytest.raises(ValueError, match=r"both be \[n, 4, 3\]"):
        pose_figures.skeletons_figure(np.zeros((1, 5, 3)), np.zeros((1, 5, 3)), PARENTS)
    with pytest.raises(ValueError, match="at least one"):
        pose_figures.skeletons_figure(np.zeros((0, 4, 3)), np.zeros((0, 4, 3)), PARENTS)
    with pytest.raises(ValueError, match=r"\[3\] must be \[1\]"):
        pose_figures.joint_errors_figure(np.zeros(3), ["a"])
    with pytest.raises(ValueError, match="no joint has a finite error"):
        pose_figures.joint_errors_figure(np.full(1, np.nan), ["a"])


def test_matplotlib_is_loaded_only_to_draw_and_keeps_its_settings(tmp_path):
    code = (
        "import sys; from jaxcxr.report import report; "
        "assert 'matplotlib' not in sys.modules; "
        f"report.joint_errors([1.0], ['hip'], {str(tmp_path / 'a.png')!r}); "
        "import matplotlib; assert 'matplotlib.pyplot' not in sys.modules; "
        "assert matplotlib.rcParams['axes.grid'] is False"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
