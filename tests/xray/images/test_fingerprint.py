"""Fingerprints: equal for equal pixels, near for near copies, far for other pictures."""

import cv2
import numpy as np
import pytest

from jaxcxr.xray import phantom
from jaxcxr.xray.images import fingerprint, image_files
from jaxcxr.xray.phantom import population


@pytest.fixture(scope="module")
def films():
    visits = [population.visit(3, patient, 0, "enriched") for patient in range(6)]
    return [phantom.render(visit, 256)[0] for visit in visits]


def distance(a, b):
    return (fingerprint.perceptual_hash(a) ^ fingerprint.perceptual_hash(b)).bit_count()


def test_sha256_is_of_shape_and_pixels(films):
    film = films[0]
    assert fingerprint.pixel_sha256(film) == fingerprint.pixel_sha256(film.copy())
    assert fingerprint.pixel_sha256(film) == fingerprint.pixel_sha256(np.asfortranarray(film))
    assert fingerprint.pixel_sha256(film) != fingerprint.pixel_sha256(film.reshape(128, 512))
    other = film.copy()
    other[7, 7] ^= 1
    assert fingerprint.pixel_sha256(film) != fingerprint.pixel_sha256(other)


@pytest.mark.parametrize("change", [
    lambda x: cv2.resize(x, (640, 640), interpolation=cv2.INTER_LINEAR),
    lambda x: image_files.resize(x, 64),
    lambda x: image_files.decode(image_files.encode(x, "jpeg")),
    lambda x: (0.7 * x + 20).astype(np.uint8),
])
def test_a_near_copy_differs_in_few_bits(films, change):
    assert all(distance(film, change(film)) <= 4 for film in films)


def test_other_pictures_and_mirror_images_differ_in_more(films):
    pairs = [distance(a, b) for i, a in enumerate(films) for b in films[:i]]
    assert min(pairs) > 4
    assert all(distance(film, film[:, ::-1].copy()) > 10 for film in films)


def test_hash_is_a_number_of_64_bits_from_the_lowest_frequency_on():
    ramp = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))
    value = fingerprint.perceptual_hash(255 - ramp)  # brighter on the left
    assert 0 <= value < 2**64
    assert value >> 62 & 1  # the first horizontal frequency
    assert not fingerprint.perceptual_hash(ramp) >> 62 & 1
