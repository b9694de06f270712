"""Figures of attention draw the numbers given, and rollout is what its paper defines."""

import numpy as np
import pytest

from jaxcxr.report import attention_figures as figures

RNG = np.random.default_rng(0)


def weights(*shape):
    x = RNG.uniform(size=shape)
    return x / x.sum(-1, keepdims=True)


def test_rollout_of_two_blocks_by_hand():
    first, second = weights(2, 3, 5, 5), weights(2, 3, 5, 5)
    found = figures.rollout([first, second])
    for example in range(2):
        product = np.eye(5)
        for block in (first[example], second[example]):
            product = (0.5 * sum(block) / 3 + 0.5 * np.eye(5)) @ product
        np.testing.assert_allclose(found[example], product, atol=1e-12)
    np.testing.assert_allclose(found.sum(-1), 1)
    np.testing.assert_array_equal(figures.rollout([np.zeros((1, 3, 3))]), np.eye(3))


def test_patches_stand_in_row_order_after_the_class_token():
    seen = weights(2, 3, 7, 7)
    maps = figures.patch_maps(seen, 2, 3, token=True)
    assert maps.shape == (2, 3, 2, 3)
    assert maps[1, 2, 1, 0] == seen[1, 2, 0, 4]
    seen = weights(6, 6)
    mean = figures.patch_maps(seen, 2, 3, token=False)
    np.testing.assert_allclose(mean[0, 2], seen[:, 2].mean())


def block(heads, **changes):
    return {"span": np.arange(heads) + 0.5, "alpha": np.full(heads, 1.25),
            "gate": np.linspace(0, 1, heads), **changes}


def test_properties_of_heads_are_written_into_their_cells():
    blocks = {"blocks_0": block(3), "blocks_1": block(2, alpha=np.array([np.nan, 2.0]))}
    figure = figures.heads_figure({"blocks": blocks, "none": {}}, {"blocks": "patches"})
    span, alpha, gate = figure.axes
    assert span.get_title() == "span (patches)"
    assert [text.get_text() for text in span.get_yticklabels()] == ["blocks_0", "blocks_1"]
    table = span.images[0].get_array()
    np.testing.assert_allclose(table.filled(np.nan), [[0.5, 1.5, 2.5], [0.5, 1.5, np.nan]])
    written = {text.get_position(): text.get_text() for text in alpha.texts}
    assert written == {(0, 0): "1.25", (1, 0): "1.25", (2, 0): "1.25", (1, 1): "2"}
    assert alpha.images[0].get_clim() == (1, 2)
    assert [text.get_text() for text in gate.texts] == ["0", "0.50", "1", "0", "1"]
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.heads_figure({"blocks": {}}, {})


@pytest.mark.parametrize("heads", [2, 14])
def test_maps_lie_over_their_images(heads):
    images, maps = RNG.uniform(size=(2, 8, 8)), RNG.uniform(size=(2, heads, 4, 4))
    rolled = RNG.uniform(size=(2, 4, 4))
    figure = figures.image_attention_figure(images, maps, rolled, ["a", "b"], "what")
    shown = min(heads, figures.MOST_HEADS)
    assert len(figure.axes) == 2 * (shown + 2)
    row = figure.axes[shown + 2 :]
    assert row[0].get_ylabel() == "b"
    np.testing.assert_array_equal(row[0].images[0].get_array(), images[1])
    np.testing.assert_array_equal(row[shown].images[0].get_array(), images[1])
    np.testing.assert_array_equal(row[shown].images[1].get_array(), maps[1, shown - 1])
    assert row[shown].images[1].get_extent() == [-0.5, 7.5, 7.5, -0.5]
    np.testing.assert_array_equal(row[-1].images[1].get_array(), rolled[1])
    assert figure.get_suptitle() == "what" + (" (heads 0 to 11 of 14)" if heads > 12 else "")
    plain = figures.image_attention_figure(images, maps, None, ["a", "b"], "what")
    assert len(plain.axes) == 2 * (shown + 1)
    with pytest.raises(ValueError, match="2 images, 2 maps and 1 titles"):
        figures.image_attention_figure(images, maps, None, ["a"], "what")


def test_weights_of_pairs():
    maps = {"joints_1": weights(3, 4, 4), "frames_1": weights(2, 6, 6)}
    names = ["hip", "left_knee", "left_ankle", "head"]
    figure = figures.pair_attention_figure(maps, {"joints_1": names}, "walking")
    assert len(figure.axes) == 5
    for axes, values in zip(figure.axes, [*maps["joints_1"], *maps["frames_1"]], strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), values)
        assert axes.images[0].get_clim() == (0, values.max())
    ticks = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert ticks == ["hip", "left knee", "left ankle", "head"]
    assert figure.axes[3].get_ylabel() == "frames_1"
    with pytest.raises(ValueError, match="no map"):
        figures.pair_attention_figure({}, {}, "")
