"""The guard against scikit-learn's probabilistic components, and on images of two kinds."""

import cv2
import numpy as np
import pytest
import safetensors.numpy
from sklearn import decomposition

from jaxcxr.deploy.bundle import guard as guards
from jaxcxr.deploy.bundle.guard import Gaussian, Guard


def films(count, seed):
    """Bright ovals, wider below, left darker than right, on a dark ground, with noise."""
    rng = np.random.default_rng(seed)
    images = rng.normal(40, 8, (count, 48, 48))
    for image in images:
        x, y = (int(v) for v in rng.integers(22, 27, 2))
        blob = np.zeros((48, 48), np.float32)
        cv2.ellipse(blob, (x, y + 4), (14, 18), 0, 0, 360, float(rng.uniform(90, 130)), -1)
        cv2.circle(blob, (x + 8, y + 12), 6, 200.0, -1)
        image += blob
    return np.clip(images, 0, 255).astype(np.uint8)


def features(pixels):
    """What a network might give: means of rows and of columns."""
    return np.concatenate([pixels.mean(1), pixels.mean(2)], 1).astype(np.float32)


def both(pixels):
    return pixels, features(pixels)


@pytest.fixture(scope="module")
def guard():
    return Guard.fit(both(films(400, 0)), both(films(200, 1)))


def test_the_distance_is_that_of_probabilistic_components():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 12)) @ rng.normal(size=(12, 12)) + rng.normal(size=12)
    found = Gaussian.fit(values)
    count = len(found.basis)
    assert 1 < count < 12
    theirs = decomposition.PCA(count).fit(values)
    others = rng.normal(size=(50, 12)) * 3
    away = others - theirs.mean_
    expected = np.einsum("ni,ij,nj->n", away, theirs.get_precision(), away)
    np.testing.assert_allclose(12 * found.distance(others) ** 2, expected, rtol=1e-3)


def test_values_of_one_point_and_fewer_images_than_dimensions_have_distances():
    for values in (np.ones((9, 5)), np.random.default_rng(0).normal(size=(7, 300))):
        found = Gaussian.fit(values).distance(np.concatenate([values, values + 9]))
        assert np.isfinite(found).all()
        assert found[: len(values)].max() < found[len(values) :].min()


def test_one_in_a_hundred_is_flagged_and_everything_turned_is(guard):
    inside = guard.score(*both(films(500, 2)))
    assert (inside > guard.threshold).mean() < 0.05
    assert (guard.score(*both(films(200, 1))) > guard.threshold).sum() == 2
    real = films(100, 3)
    for change, words in (
        (lambda x: 255 - x, "gray values are inverted"),
        (lambda x: np.rot90(x, 1, (1, 2)), "turned by 270 degrees"),
        (lambda x: np.rot90(x, 3, (1, 2)), "turned by 90 degrees"),
        (lambda x: x[:, ::-1, ::-1], "upside down"),
    ):
        pixels = np.ascontiguousarray(change(real))
        parts = guard.parts(*both(pixels))
        assert (parts.max(1) > guard.threshold).mean() > 0.95
        reasons = [guard.reason(*pair) for pair in zip(pixels, parts, strict=True)]
        assert np.mean([words in reason for reason in reasons]) > 0.9


def test_noise_and_blank_images_are_named_for_what_they_are(guard):
    rng = np.random.default_rng(4)
    noise = rng.integers(0, 256, (20, 48, 48), np.uint8)
    blank = np.full((3, 48, 48), 100, np.uint8)
    for pixels, words in ((noise, "unlike the training images in"), (blank, "blank")):
        parts = guard.parts(*both(pixels))
        for image, part in zip(pixels, parts, strict=True):
            assert words in guard.reason(image, part)
    kept = films(1, 1)
    assert guard.reason(kept[0], np.array([0.0, guard.threshold])) == ""


def test_bytes_come_back_and_other_bytes_do_not(guard):
    again = Guard.from_bytes(guard.to_bytes())
    pixels, seen = both(films(9, 5))
    np.testing.assert_array_equal(again.score(pixels, seen), guard.score(pixels, seen))
    assert again.threshold == guard.threshold
    assert again.channels == 96
    arrays = safetensors.numpy.load(guard.to_bytes())
    for name, value in (
        ("content/mean", np.zeros(5, np.float32)), ("threshold", np.array([np.nan])),
        ("content/spread", np.zeros(3)),
    ):
        with pytest.raises(ValueError, match=r"guard"):
            Guard.from_bytes(safetensors.numpy.save({**arrays, name: value}))
    arrays.pop("threshold")
    with pytest.raises(KeyError):
        Guard.from_bytes(safetensors.numpy.save(arrays))


def test_thumbnails_do_not_see_brightness_and_contrast():
    pixels = films(4, 6)
    darker = (20 + pixels * 0.5).astype(np.float32)
    left, right = guards.thumbnails(pixels), guards.thumbnails(darker)
    np.testing.assert_allclose(left, right, atol=0.05)
