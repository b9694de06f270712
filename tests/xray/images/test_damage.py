import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.xray.images import damage

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)


def test_border_and_center_are_the_two_parts_of_an_image():
    border, center = damage.border_only(IMAGE), damage.center_only(IMAGE)
    np.testing.assert_array_equal(border + center, IMAGE)
    assert (border[6:42, 8:56] == 0).all()
    assert (border[:6] == IMAGE[:6]).all()
    assert (center[:6] == 0).all()


def test_lungs_are_two_and_black():
    mask = damage.lungs(100, 100)
    assert not mask[:, 50].any()
    assert mask[46, 31]
    assert mask[46, 69]
    assert mask.mean() == pytest.approx(2 * np.pi * 0.17 * 0.34, rel=0.02)
    hidden = damage.without_lungs(IMAGE)
    mask = damage.lungs(*IMAGE.shape)
    assert (hidden[mask] == 0).all()
    np.testing.assert_array_equal(hidden[~mask], IMAGE[~mask])


def test_a_low_pass_keeps_the_mean_and_loses_detail():
    low = damage.low_pass(IMAGE).astype(float)
    assert low.mean() == pytest.approx(IMAGE.mean(), abs=4)
    assert low.std() < 0.2 * IMAGE.std()


@pytest.mark.parametrize(
    ("kind", "level"), [("noise", 0), ("blur", 0), ("contrast", 1), ("rotation", 0),
                        ("inversion", 0)],
)
def test_the_mildest_level_changes_nothing(kind, level):
    np.testing.assert_array_equal(damage.corrupted(IMAGE, kind, level), IMAGE)


@pytest.mark.parametrize("kind", damage.CORRUPTIONS)
def test_stronger_levels_change_more(kind):
    smooth = damage.blur(IMAGE, 2)
    change = [
        np.abs(damage.corrupted(smooth, kind, level, (1, 2)).astype(float) - smooth).mean()
        for level in damage.CORRUPTIONS[kind][1]
    ]
    assert change[0] > 0
    assert change == sorted(change)


def test_what_is_drawn_follows_the_seed():
    one, same, other = (damage.corrupted(IMAGE, "noise", 10, seed) for seed in ((1,), (1,), (2,)))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert np.std(damage.noise(np.full((200, 200), 128, np.uint8), 10, np.random.default_rng(0))
                  ) == pytest.approx(10, rel=0.03)


def test_the_negative_and_a_quarter_turn():
    np.testing.assert_array_equal(damage.inversion(IMAGE, 1), 255 - IMAGE)
    square = IMAGE[:48, :48]
    np.testing.assert_array_equal(damage.rotation(square, 90), np.rot90(square))
    with pytest.raises(UserError, match="no corruption is called 'fog'; allowed: noise"):
        damage.corrupted(IMAGE, "fog", 1)
