"""Near-duplicates: the search against brute force, both thresholds measured on real films."""

import cv2
import numpy as np
import pytest

from jaxcxr.xray.audit import duplicates
from jaxcxr.xray.images import film_files, fingerprint, image_files


def hashes(seed, n):
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


def flipped(values, bits, seed):
    """Each hash with exactly this many bits turned over."""
    rng = np.random.default_rng(seed)
    masks = [sum(1 << int(b) for b in rng.choice(64, bits, replace=False)) for _ in values]
    return values ^ np.array(masks, np.uint64)


@pytest.mark.parametrize("bits", [0, 4, 8])
def test_the_search_finds_what_python_finds(bits):
    left = hashes(0, 150)
    right = np.concatenate([flipped(left[:70], n, n) for n in (0, 3, 4, 5, 9)])
    expected = {(i, j) for i, a in enumerate(left.tolist()) for j, b in enumerate(right.tolist())
                if (a ^ b).bit_count() <= bits}
    pairs, ended = duplicates.near_pairs(left, right, bits)
    assert {tuple(pair) for pair in pairs.tolist()} == expected
    assert len(pairs) == len(expected) >= 70
    assert not ended


def test_the_search_ends_at_its_limit():
    same = np.zeros(300, np.uint64)
    pairs, ended = duplicates.near_pairs(same, same, limit=1000)
    assert ended
    assert pairs.shape == (1000, 2)
    assert duplicates.near_pairs(same[:0], same)[0].shape == (0, 2)


def test_correlation_is_numpys_of_the_better_of_both():
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 256, (2, 30, 32, 32), dtype=np.uint8)
    right[:10] = (255 * (left[:10] / 255.0) ** 3).astype(np.uint8)
    equal = [[cv2.equalizeHist(image) for image in part] for part in (left, right)]
    expected = [
        max(np.corrcoef(a.ravel(), b.ravel())[0, 1], np.corrcoef(c.ravel(), d.ravel())[0, 1])
        for a, b, c, d in zip(left, right, *equal, strict=True)
    ]
    result = duplicates.correlations(left, right)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert (result[:10] > 0.98).all()


def test_correlation_of_images_of_one_gray_value():
    gray = np.full((1, 32, 32), 7, np.uint8)
    other = np.random.default_rng(0).integers(0, 256, (1, 32, 32), dtype=np.uint8)
    assert duplicates.correlations(gray, gray + np.uint8(90)) == 1
    assert duplicates.correlations(gray, other) == 0


def test_thumbnails_are_in_the_order_asked_for():
    stored = np.random.default_rng(0).integers(0, 256, (5, 64, 80), dtype=np.uint8)
    result = duplicates.thumbnails(stored.__getitem__, [3, 0, 3])
    expected = [duplicates.thumbnail(stored[i]) for i in (3, 0, 3)]
    np.testing.assert_array_equal(result, expected)


def jpeg(quality):
    def copy(image):
        content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    return copy


def scaled(factor):
    return lambda image: image_files.resize(image, round(len(image) * factor))


def gray(factor, offset=0):
    return lambda image: np.clip(image * float(factor) + offset, 0, 255).astype(np.uint8)


def gamma(power):
    return lambda image: (255 * (image / 255.0) ** power).astype(np.uint8)


def moved(pixels):
    return lambda image: np.pad(image, ((pixels, 0), (pixels, 0)), "edge")[:-pixels, :-pixels]


def cropped(share):
    def copy(image):
        edge = round(len(image) * share)
        return image[edge:-edge, edge:-edge]
    return copy


# Least share of the copies of 621 films that must be found and confirmed.
COPIES = {
    "JPEG of quality 50": (jpeg(50), 0.999),
    "half size": (scaled(0.5), 0.999),
    "double size": (scaled(2), 0.999),
    "20% darker": (gray(0.8), 0.999),
    "20 gray levels brighter": (gray(1, 20), 0.999),
    "half size, 10% darker, 10 gray levels brighter, JPEG of quality 75": (
        lambda x: jpeg(75)(gray(0.9, 10)(scaled(0.5)(x))), 0.999
    ),
    "20% brighter": (gray(1.2), 0.98),
    "gamma 0.8": (gamma(0.8), 0.98),
    "gamma 1.25": (gamma(1.25), 0.95),
    "moved by 1 pixel of 256": (moved(1), 0.95),
    "moved by 2 pixels of 256": (moved(2), 0.65),
    "cropped by 1% a side": (cropped(0.01), 0.6),
    "cropped by 2% a side": (cropped(0.02), 0.0),
    "cropped by 5% a side": (cropped(0.05), 0.0),
    "histogram equalised": (lambda x: image_files.equalize(x, "hist"), 0.5),
    "CLAHE": (lambda x: image_files.equalize(x, "clahe"), 0.0),
    "mirrored": (lambda x: x[:, ::-1], 0.0),
}


def films(shared_data, name):
    folder = shared_data / name / "images"
    if not folder.is_dir():
        pytest.skip(f"no films in {folder}; see `shared_data`")
    paths = sorted(folder.iterdir())
    read = [film_files.read(path).gray8 for path in paths]
    hashed = np.array([fingerprint.perceptual_hash(image) for image in read], np.uint64)
    small = np.stack([duplicates.thumbnail(image) for image in read])
    return read, hashed, small, np.array([path.name[:8] for path in paths])


@pytest.mark.slow
@pytest.mark.parametrize("name", COPIES)
def test_copies_found(shared_data, record, name):
    copy, least = COPIES[name]
    read, hashed, small, _ = films(shared_data, "chestxray14_256")
    copies = [np.ascontiguousarray(copy(image)) for image in read]
    hashes_of = np.array([fingerprint.perceptual_hash(image) for image in copies], np.uint64)
    near = np.bitwise_count(hashed ^ hashes_of) <= duplicates.BITS
    small_copies = np.stack([duplicates.thumbnail(image) for image in copies])
    alike = duplicates.correlations(small, small_copies) >= duplicates.CORRELATION
    print(f"\n{name}: hash {near.mean():.3f}, found and confirmed {(near & alike).mean():.3f}")
    record(
        "near_duplicates", (name, f"{100 * near.mean():.1f}", f"{100 * (near & alike).mean():.1f}"),
        columns=("copy", "hashes alike, %", "found, %"),
        note=f"{len(read)} images of ChestX-ray14 at 256 x 256 pixels, one of each patient; found "
             f"are copies whose hash differs in at most {duplicates.BITS} bits and whose pixels "
             f"correlate by at least {duplicates.CORRELATION}.",
    )
    assert (near & alike).mean() >= least


@pytest.mark.slow
def test_false_matches_among_films_of_different_patients(shared_data, record):
    total, highest = 0, 0.0
    found = dict.fromkeys((0, 2, 4, 6, 8), 0)
    confirmed = dict.fromkeys(found, 0)
    for name in ("chestxray14_256", "chestxray14_64"):
        _, hashed, small, patients = films(shared_data, name)
        first, second = np.triu_indices(len(hashed), 1)
        others = patients[first] != patients[second]
        first, second = first[others], second[others]
        differing = np.bitwise_count(hashed[first] ^ hashed[second])
        total += len(first)
        correlation = np.concatenate([
            duplicates.correlations(small[first[i : i + 9999]], small[second[i : i + 9999]])
            for i in range(0, len(first), 9999)
        ])
        highest = max(highest, float(correlation.max()))
        for bits in found:
            near = differing <= bits
            found[bits] += int(near.sum())
            confirmed[bits] += int((correlation[near] >= duplicates.CORRELATION).sum())
    print(f"\n{total:,} pairs; false {found}; confirmed {confirmed}; correlation {highest:.4f}")
    record("near_duplicates", pairs=f"{total:,}", highest=f"{highest:.3f}",
           **{f"at{bits}": str(found[bits]) for bits in (4, 6, 8)})
    assert total == 683_679
    assert found == {0: 0, 2: 0, 4: 4, 6: 46, 8: 338}
    assert set(confirmed.values()) == {0}
    assert highest < 0.97
    for bits, rate in duplicates.FALSE_MATCHES.items():
        assert rate == pytest.approx(found[bits // 2 * 2] / total, rel=0.02)


@pytest.mark.slow
def test_a_whole_chestxray14_is_searched_in_half_a_minute():
    import time
    left, right = hashes(0, 25_596), hashes(1, 86_524)
    start = time.monotonic()
    duplicates.near_pairs(left, right)
    seconds = time.monotonic() - start
    print(f"\n{seconds:.1f} s")
    assert seconds < 30
