import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy import ndimage

from jaxcxr import config as base
from jaxcxr.xray import augment

OFF = {
    "rotation": 0.0, "scale": 0.0, "translation": 0.0, "shear": 0.0, "crop_area": 1.0,
    "crop_aspect": 0.0, "brightness": 0.0, "contrast": 0.0, "gamma": 0.0, "horizontal_flip": 0.0,
}  # fmt: skip


def xray(**changes):
    config = base.default("cxr").augment.unlock()
    config.update({**OFF, **changes})
    return config


@pytest.fixture
def images():
    return jnp.asarray(np.random.default_rng(0).uniform(size=(8, 24, 20, 1)), jnp.float32)


@pytest.fixture
def key():
    return jax.random.key(3)


def test_everything_off_is_the_very_image(images, key):
    np.testing.assert_array_equal(augment.augment_xray(key, images, xray()), images)
    # The arithmetic itself is exact too, not only the shortcut past it.
    matrix, offset = augment.random_affine(key, xray(), 24, 20)
    same = augment.affine_sample(images, jnp.stack([matrix] * 8), jnp.stack([offset] * 8))
    np.testing.assert_array_equal(same, images)
    barely = augment.augment_xray(key, images, xray(brightness=1e-30, contrast=1e-30))
    np.testing.assert_array_equal(barely, images)


@pytest.mark.parametrize("degrees", [-33.0, 7.0, 90.0])
def test_affine_sampling_is_scipys(images, degrees):
    angle = np.deg2rad(degrees)
    matrix = 1.2 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix[0, 1] += 0.1
    offset = np.array([1.5, -0.7])
    ours = augment.affine_sample(
        images[:1],
        jnp.asarray(matrix, jnp.float32)[None],
        jnp.asarray(offset, jnp.float32)[None],
        fill=0.25,
    )[0, ..., 0]
    image = np.asarray(images[0, ..., 0], np.float64)
    center = (np.array(image.shape) - 1) / 2
    theirs = ndimage.affine_transform(
        image, matrix, center - matrix @ center + offset, order=1, mode="grid-constant", cval=0.25
    )
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_flip_and_quarter_turn_are_numpys(images, key):
    square = images[:, :20]
    turn = jnp.tile(jnp.array([[[0.0, 1.0], [-1.0, 0.0]]]), (8, 1, 1))
    turned = augment.affine_sample(square, turn, jnp.zeros((8, 2)))
    np.testing.assert_array_equal(turned, np.rot90(square, axes=(1, 2)))
    flipped = augment.augment_xray(key, images, xray(horizontal_flip=1.0))
    np.testing.assert_array_equal(flipped, images[:, :, ::-1])


def draws(config, count=400, size=100):
    keys = jax.random.split(jax.random.key(0), count)
    return jax.vmap(lambda k: augment.random_affine(k, config, size, size))(keys)


def test_rotations_stay_in_their_range():
    matrices, offsets = map(np.asarray, draws(xray(rotation=20.0)))
    np.testing.assert_allclose(np.einsum("nij,nkj->nik", matrices, matrices),
                               np.tile(np.eye(2), (400, 1, 1)), atol=1e-6)
    angles = np.rad2deg(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert -20 <= angles.min() < -18 < 18 < angles.max() <= 20
    np.testing.assert_array_equal(offsets, 0)


def test_zooms_shifts_and_shears_stay_in_their_ranges():
    matrices, offsets = map(np.asarray, draws(xray(scale=0.25, translation=0.1)))
    zoom = 1 / matrices[:, 0, 0]
    assert 0.8 <= zoom.min() < 0.82 < 1.22 < zoom.max() <= 1.2500001
    assert -10 <= offsets.min() < -9.5 < 9.5 < offsets.max() <= 10
    matrices, _ = map(np.asarray, draws(xray(shear=10.0)))
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-6)
    angles = np.rad2deg(np.arctan(matrices[:, 0, 1]))
    assert -10 <= angles.min() < -9 < 9 < angles.max() <= 10.00001


def test_crops_lie_inside_and_have_the_area_and_aspect_asked_for():
    matrices, offsets = map(np.asarray, draws(xray(crop_area=0.5, crop_aspect=0.2)))
    share = np.stack([matrices[:, 0, 0], matrices[:, 1, 1]], 1)
    edges = np.concatenate([offsets - 50 * share, offsets + 50 * share])
    assert -50.0001 <= edges.min() < -49 < 49 < edges.max() <= 50.0001
    area, aspect = share.prod(1), share[:, 1] / share[:, 0]
    assert 0.5 - 1e-6 <= area.min() < 0.52
    assert area.max() <= 1
    assert 1 / 1.2 - 1e-6 <= aspect.min() < 0.86
    assert 1.17 < aspect.max() <= 1.2 + 1e-6


def test_tone(images, key):
    out = np.asarray(augment.augment_xray(key, images * 0.4 + 0.3, xray(brightness=0.1)))
    added = out - np.asarray(images * 0.4 + 0.3)
    assert added.std(axis=(1, 2, 3)).max() < 1e-6
    assert np.abs(added).max() <= 0.1
    assert added.mean(axis=(1, 2, 3)).std() > 0.01
    before = np.asarray(images * 0.4 + 0.3)
    out = np.asarray(augment.augment_xray(key, before, xray(contrast=0.5)))
    np.testing.assert_allclose(out.mean((1, 2, 3)), before.mean((1, 2, 3)), atol=1e-6)
    ratio = out.std((1, 2, 3)) / before.std((1, 2, 3))
    assert 0.5 <= ratio.min() < 0.9
    assert 1.1 < ratio.max() <= 1.5
    out = np.asarray(augment.augment_xray(key, images, xray(gamma=0.5)))
    exponent = np.log(out[:, 3, 4, 0]) / np.log(np.asarray(images)[:, 3, 4, 0])
    assert 1 / 1.5 <= exponent.min() < exponent.max() <= 1.5
    out = augment.augment_xray(key, images, xray(brightness=0.9))
    assert 0 <= out.min() <= out.max() <= 1


def test_an_example_is_changed_alike_in_any_batch(images, key):
    config = base.default("cxr").augment.unlock()
    positions = jnp.array([40, 7, 99, 1, 0, 5, 6, 8], jnp.uint32)
    whole = augment.augment_xray(key, images, config, positions)
    assert np.abs(whole - images).max() > 0.1
    order = np.array([5, 2, 0])
    part = augment.augment_xray(key, images[order], config, positions[order])
    np.testing.assert_allclose(part, whole[order], atol=1e-5)
    again = augment.augment_xray(key, images, config, positions)
    np.testing.assert_array_equal(again, whole)
    other = augment.augment_xray(jax.random.key(4), images, config, positions)
    assert np.abs(other - whole).max() > 0.1
    same = jnp.tile(images[:1], (8, 1, 1, 1))
    varied = np.asarray(augment.augment_xray(key, same, config)).reshape(8, -1)
    assert len(np.unique(varied, axis=0)) == 8


def test_layout_over_devices_changes_nothing(images, key):
    config = base.default("cxr").augment.unlock()
    expected = augment.augment_xray(key, images, config)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    step = jax.jit(lambda k, x: augment.augment_xray(k, x, config))
    step = step.lower(key, jax.device_put(images, sharding)).compile()
    assert "all-gather" not in step.as_text()
    sharded = step(key, jax.device_put(images, sharding))
    # A coordinate of 24 pixels is rounded to 2e-6, and neighbours differ by up to 1.
    np.testing.assert_allclose(sharded, expected, atol=1e-5)
    assert sharded.sharding.is_equivalent_to(sharding, 4)
