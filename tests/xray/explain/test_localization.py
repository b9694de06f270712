import math

import numpy as np
import pytest

from jaxcxr.xray.explain import localization


def test_a_box_holds_the_pixels_whose_centres_it_holds():
    mask = localization.box_mask([[1, 2, 3, 1]], 5, 6)
    assert np.argwhere(mask).tolist() == [[2, 1], [2, 2], [2, 3]]
    assert localization.box_mask([[0.6, 0, 1, 1]], 1, 3).tolist() == [[False, True, False]]
    both = localization.box_mask([[0, 0, 2, 2], [1, 1, 2, 2]], 4, 4)
    assert both.sum() == 7
    assert not localization.box_mask(np.zeros((0, 4)), 4, 4).any()
    assert localization.box_mask([[-5, -5, 50, 50]], 4, 4).all()


def test_a_map_that_is_the_box_scores_perfectly_and_its_negative_nothing():
    mask = localization.box_mask([[2, 3, 4, 2]], 8, 8)
    perfect = mask.astype(np.float32)
    for score in (localization.pointing_game, localization.box_iou, localization.energy_in_boxes):
        assert score(perfect, mask) == 1
        assert score(1 - perfect, mask) == 0


def test_constant_maps_score_as_chance_does():
    mask = localization.box_mask([[0, 0, 4, 2]], 8, 8)
    area = mask.mean()
    flat = np.full((8, 8), 0.3)
    assert localization.pointing_game(flat, mask) == pytest.approx(area)
    assert localization.energy_in_boxes(flat, mask) == pytest.approx(area)
    # Of `size` pixels chosen blindly the share `area` is in the box.
    assert localization.box_iou(flat, mask) == pytest.approx(area / (2 - area))
    assert math.isnan(localization.energy_in_boxes(np.zeros((8, 8)), mask))
    assert math.isnan(localization.rank_correlation(flat, np.random.default_rng(0).random((8, 8))))


def test_overlap_by_count():
    mask = localization.box_mask([[0, 0, 2, 2]], 4, 4)
    shifted = localization.box_mask([[1, 0, 2, 2]], 4, 4).astype(float)
    assert localization.box_iou(shifted, mask) == pytest.approx(2 / 6)


def test_order_alone_decides_the_rank_correlation():
    values = np.random.default_rng(1).normal(size=(5, 5))
    assert localization.rank_correlation(values, np.exp(values)) == pytest.approx(1)
    assert localization.rank_correlation(values, -(values**3)) == pytest.approx(-1)
