import subprocess
import sys

import numpy as np
import pytest

from jaxcxr.pose.report import pose_figures
from tests.report.pngs import saved_size

PARENTS = (-1, 0, 1, 1)


def test_skeletons_stand_upright_with_every_bone(tmp_path):
    truth = np.array([[[0, 0, 3000], [0, -500, 3000], [-200, -400, 2900], [200, -400, 3100.0]]] * 4)
    pred = truth + np.array([30.0, 0, 40])
    figure = pose_figures.skeletons_figure(pred, truth, PARENTS)
    saved_size(figure, tmp_path / "skeletons.png")
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
    saved_size(figure, tmp_path / "joints.png")
    axes = figure.axes[0]
    assert [patch.get_width() for patch in axes.patches] == [10, 0, 30]
    assert [text.get_text() for text in axes.texts] == ["10.0", "n/a", "30.0"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["hip", "left knee", "head"]
    assert axes.lines[0].get_xdata()[0] == 20
    assert axes.yaxis_inverted()


def test_wrong_shapes_are_named():
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
        "import sys; "
        "from jaxcxr.pose.report import pose_figures; from jaxcxr.report import canvas; "
        "assert 'matplotlib' not in sys.modules; "
        "figure = pose_figures.joint_errors_figure([1.0], ['hip']); "
        f"canvas.save(figure, {str(tmp_path / 'a.png')!r}); "
        "import matplotlib; assert 'matplotlib.pyplot' not in sys.modules; "
        "assert matplotlib.rcParams['axes.grid'] is False"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
