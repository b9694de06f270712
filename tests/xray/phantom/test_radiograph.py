import dataclasses

import numpy as np
import pytest

from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.xray import phantom
from jaxcxr.xray.phantom import population, radiograph
from jaxcxr.xray.phantom.anatomy import measure

# Share of the squared difference that must lie in the boxes. Some signs reach beyond them: lying
# patients' effusions veil the lung, a collapsed lung is denser all over, edema fills upper vessels.
_CONCENTRATED = dict.fromkeys(FINDINGS, 0.9) | {
    "Effusion": 0.7, "Pneumothorax": 0.7, "Atelectasis": 0.75, "Edema": 0.75,
}


def _visit(patient, severity, view="PA", sex="M", age=50, number=0, seed=0):
    return population.Visit(seed, patient, number, view, sex, age, severity)


@pytest.mark.parametrize("finding", FINDINGS)
def test_boxes_hold_what_the_finding_changes(finding):
    for patient, (severity, view, sex) in enumerate(
        [(0.05, "PA", "M"), (0.4, "AP", "F"), (0.7, "PA", "F"), (0.95, "AP", "M")]
    ):
        visit = _visit(patient, {finding: severity}, view, sex)
        image, boxes = phantom.render(visit, 128)
        healthy, none = phantom.render(dataclasses.replace(visit, severity={}), 128)
        assert len(none) == 0
        assert len(boxes)
        assert set(boxes[:, 0]) == {FINDINGS.index(finding)}
        difference = (image.astype(np.float64) - healthy) ** 2
        difference[difference < 16] = 0  # what four grey levels of noise and scatter explain
        inside = np.zeros(image.shape, bool)
        for _, x, y, width, height in boxes:
            rows = slice(max(0, int(y) - 2), int(np.ceil(y + height)) + 2)
            inside[rows, max(0, int(x) - 2) : int(np.ceil(x + width)) + 2] = True
        assert difference.sum() > 1000
        assert difference[inside].sum() > _CONCENTRATED[finding] * difference.sum()


@pytest.mark.parametrize("size", [32, 48, 64, 128, 256])
def test_images_and_boxes_fit_any_size(size):
    severity = dict.fromkeys(FINDINGS, 0.6)
    image, boxes = phantom.render(_visit(3, severity), size)
    assert image.shape == (size, size)
    assert image.dtype == np.uint8
    assert boxes.dtype == np.float32
    assert boxes[:, 1:3].min() >= 0
    assert (boxes[:, 1:3] + boxes[:, 3:]).max() <= size + 1e-4
    assert boxes[:, 3:].min() > 0
    assert image.std() > 30


def test_a_larger_image_shows_the_same_chest():
    visit = _visit(8, {"Mass": 0.5, "Effusion": 0.7})
    small, small_boxes = phantom.render(visit, 64)
    large, large_boxes = phantom.render(visit, 256)
    pooled = large.reshape(64, 4, 64, 4).mean((1, 3))
    assert np.corrcoef(pooled.ravel(), small.ravel())[0, 1] > 0.98
    np.testing.assert_allclose(large_boxes[:, 1:] / 4, small_boxes[:, 1:], atol=1.5)


def test_drawing_is_deterministic_and_seeds_differ():
    visit = population.visit(4, 17, 1, "enriched")
    first, boxes = phantom.render(visit, 64)
    again, boxes_again = phantom.render(population.visit(4, 17, 1, "enriched"), 64)
    assert first.tobytes() == again.tobytes()
    np.testing.assert_array_equal(boxes, boxes_again)
    other, _ = phantom.render(population.visit(5, 17, 1, "enriched"), 64)
    assert (first != other).mean() > 0.5


def test_a_patient_keeps_the_chest_and_gets_a_new_film():
    for patient in range(6):
        first, second = (measure(_visit(patient, {}, number=n)) for n in (0, 1))
        assert first.half_width == second.half_width
        assert first.ratio() == second.ratio()
        assert abs(first.span / second.span - 1) < 0.2  # depth of breath
        assert first.field != second.field
    assert len({measure(_visit(p, {})).half_width for p in range(6)}) == 6


def _width_of_heart(image, visit):
    """Columns brighter than halfway between lung and mediastinum, in mm, just above the dome."""
    geometry = radiograph.geometry_of(visit)
    pixel = geometry.field / len(image)
    row = int((0.82 * geometry.span - geometry.top) / pixel)
    line = image[row - 2 : row + 3].mean(0)
    x = (np.arange(len(line)) + 0.5) * pixel + geometry.left_edge
    lung = line[np.abs(x) < 0.9 * geometry.half_width]
    bright = (line > (lung.min() + line[np.abs(x) < 12].mean()) / 2) & (
        np.abs(x) < 0.85 * geometry.half_width
    )
    return bright.sum() * pixel


def test_cardiothoracic_ratio_tells_cardiomegaly():
    for patient in range(40):
        normal = _visit(patient, {}, sex="MF"[patient % 2], age=20 + patient)
        large = _visit(patient, {"Cardiomegaly": 0.02}, sex="MF"[patient % 2], age=20 + patient)
        assert 0.33 < radiograph.geometry_of(normal).ratio() < 0.5
        assert 0.5 < radiograph.geometry_of(large).ratio() < 0.75
    image, _ = phantom.render(_visit(2, {"Cardiomegaly": 0.8}), 256)
    healthy, _ = phantom.render(_visit(2, {}), 256)
    wide, slim = (_width_of_heart(i, _visit(2, s)) for i, s in
                  ((image, {"Cardiomegaly": 0.8}), (healthy, {})))
    assert wide > slim + 25


def test_frontal_films_enlarge_the_heart_and_shorten_the_lungs():
    ratios, heights = {}, {}
    for view in ("PA", "AP"):
        chests = [measure(_visit(p, {}, view)) for p in range(60)]
        ratios[view] = np.mean([chest.ratio() for chest in chests])
        heights[view] = np.mean([chest.height[0] for chest in chests])
    assert ratios["AP"] > ratios["PA"] + 0.02
    assert heights["AP"] < heights["PA"]


@pytest.mark.parametrize(("finding", "least", "most"), [("Nodule", 10, 30), ("Mass", 30, 95)])
def test_nodules_are_below_three_centimetres_and_masses_above(finding, least, most):
    for patient, severity in enumerate(np.linspace(0.01, 1.0, 8)):
        visit = _visit(patient, {finding: float(severity)})
        _, boxes = phantom.render(visit, 256)
        millimetres = boxes[:, 3:] * radiograph.geometry_of(visit).field / 256
        assert millimetres.max() <= most + 3  # rounded up to whole pixels of 1.4 mm
        assert millimetres.max(1).min() >= least - 3


def test_effusion_and_emphysema_move_grey_values_the_right_way():
    effusion = _visit(6, {"Effusion": 0.8})
    image, boxes = phantom.render(effusion, 128)
    healthy, _ = phantom.render(_visit(6, {}), 128)
    x, y, width, height = boxes[0, 1:].astype(int)
    part = np.s_[y : y + height, x : x + width]
    assert image[part].mean() > healthy[part].mean() + 25
    emphysema, _ = phantom.render(_visit(6, {"Emphysema": 0.8}), 128)
    assert emphysema[30:70].mean() < healthy[30:70].mean() - 8
    chest, flat = measure(_visit(6, {})), radiograph.geometry_of(_visit(6, {"Emphysema": 0.8}))
    assert flat.height[0] > chest.height[0] + 15
    assert flat.sag < 0.6 * chest.sag
    assert flat.ratio() < chest.ratio()
