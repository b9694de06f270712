import numpy as np
import pytest
from sklearn import metrics as sk

from jaxcxr.xray.report import xray_figures
from tests.report.pngs import saved_size


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
    saved_size(figure, tmp_path / "roc.png")
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
    figure = xray_figures.roc_figure(np.ones((3, 1)), np.zeros((3, 1)), ("Mass",))
    assert min(saved_size(figure, tmp_path / "roc.png")) > 300
    assert "n/a over 0 of 1" in figure.get_suptitle()


@pytest.mark.parametrize("count", [1, 5])
def test_samples_show_images_labels_and_scores(tmp_path, predictions, count):
    labels, scores, classes = predictions
    labels, scores = labels[:count], scores[:count]
    images = np.random.default_rng(1).integers(0, 256, (count, 16, 12), np.uint8)
    figure = xray_figures.samples_figure(images[..., None], labels, scores, classes)
    saved_size(figure, tmp_path / "samples.png")
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


def test_wrong_shapes_are_named(predictions):
    labels, scores, classes = predictions
    with pytest.raises(ValueError, match=r"images \[0, 8, 8\]"):
        xray_figures.samples_figure(np.zeros((0, 8, 8)), labels[:0], scores[:0], classes)
    with pytest.raises(ValueError, match=r"both be \[examples, 3\]"):
        xray_figures.roc_figure(labels, scores, classes[:3])
