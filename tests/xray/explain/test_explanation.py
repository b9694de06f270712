"""The cases that a report shows."""

import cv2
import numpy as np

from jaxcxr.xray.explain import explanation


def test_cases_are_of_different_images_and_classes_first():
    labels = np.array([[1, 0], [1, 1], [0, 1], [-1, 0]])
    scores = np.array([[0.9, 0.8], [0.2, 0.95], [0.1, 0.3], [0.99, 0.1]])
    found = explanation.choose(labels, scores, 2)
    pairs = {name: [(c.index, c.finding) for c in group] for name, group in found.items()}
    assert pairs == {"found": [(1, 1), (0, 0)], "missed": [(1, 0), (2, 1)],
                     "false alarms": [(0, 1), (2, 0)]}
    assert all(c.label == labels[c.index, c.finding] for g in found.values() for c in g)
    assert all((3, 0) not in group for group in pairs.values())  # unknown


def test_a_picture_under_a_map_is_unchanged_where_the_map_is_least():
    image = np.random.default_rng(0).integers(0, 255, (256, 256), dtype=np.uint8)
    heat = np.zeros((256, 256))
    heat[100:150, 100:150] = 1
    before, after = (
        cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        for png in explanation.pictures(image, heat)
    )
    np.testing.assert_array_equal(before[:100], after[:100])
    assert (before[110:140, 110:140] != after[110:140, 110:140]).any(-1).mean() > 0.9
