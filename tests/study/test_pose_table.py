"""Errors of a study's runs from the files they left, and their intervals over motions."""

import csv
import io

import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import pose_errors
from jaxcxr.study import pose_table

RNG = np.random.default_rng(0)
KEYS = [f"03/03_{take:02d}/{camera}" for take in (1, 2, 3) for camera in ("a", "b")]


def poses(frames):
    return RNG.normal(0, 0.3, (frames, 17, 3)).astype(np.float32)


def workdir(folder, noise=0.05):
    (folder / "predictions").mkdir(parents=True)
    truth = {key: poses(5 + i) for i, key in enumerate(KEYS)}
    guess = {key: one + RNG.normal(0, noise, one.shape).astype(np.float32)
             for key, one in truth.items()}
    np.savez(folder / "predictions" / "test_labels.npz", unit="m", **truth)
    np.savez(folder / "predictions" / "test.npz", unit="m", **guess)
    return truth, guess


def result(sequences, **changes):
    return {"sequences": sequences, "validation": {"mpjpe": 70.0}, "parameters": 1000,
            "flops": 2e6, "milliseconds": 3.0, "steps": 100, "batch_size": 32,
            "examples_per_second": 640.0, **changes}


def same_everywhere(error, frames=4):
    """Sums of a run whose error is `error` mm in every joint of every frame."""
    return {key: {name: [17 * frames * error, 17 * frames] for name in pose_table.METRICS}
            for key in KEYS}


def test_means_are_those_of_the_metrics_over_all_frames(tmp_path):
    truth, guess = workdir(tmp_path)
    sums = pose_table.sequence_sums(tmp_path)
    assert list(sums) == KEYS
    (row,) = pose_table.make("clean", 27, {"a": {0: result(sums)}}, "")
    y, x = (np.concatenate(list(part.values())) * 1000 for part in (truth, guess))
    names = np.repeat(KEYS, [len(part) for part in truth.values()])
    expected = [pose_errors.mpjpe(x, y), pose_errors.p_mpjpe(x, y), pose_errors.mpjve(x, y, sequences=names)]
    np.testing.assert_allclose(row.values, expected, rtol=1e-5)
    assert np.all(row.ranges[:, 0] < row.values)
    assert np.all(row.values < row.ranges[:, 1])
    for i, one in enumerate(pose_table.overall(sums).values()):
        np.testing.assert_allclose(one, [row.values[i], *row.ranges[i]], rtol=1e-12)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="test_labels"):
        pose_table.sequence_sums(tmp_path)


def test_seeds_are_pooled_and_their_spread_is_told():
    runs = {seed: result(same_everywhere(error)) for seed, error in enumerate((60.0, 70.0, 86.0))}
    (row,) = pose_table.make("clean", 27, {"a": runs}, "a")
    assert row.seeds == 3
    assert row.reference
    np.testing.assert_allclose(row.values, 72.0)
    np.testing.assert_allclose(row.spread, np.std([60, 70, 86], ddof=1))
    # no motion differs from another
    np.testing.assert_allclose(row.ranges, 72.0)


def test_the_interval_of_a_difference_is_of_the_same_motions():
    """Motions of very different difficulty, and a row that is 2 mm worse on each of them."""
    easy = {key: {name: [17 * 4 * (10.0 + 90 * i), 17 * 4] for name in pose_table.METRICS}
            for i, key in enumerate(KEYS)}
    worse = {key: {name: [s + 2 * n, n] for name, (s, n) in one.items()}
             for key, one in easy.items()}
    results = {"plain": {0: result(easy)}, "other": {0: result(worse)}}
    plain, other = pose_table.make("clean", 27, results, "plain")
    assert np.ptp(plain.ranges[0]) > 100
    np.testing.assert_allclose((other.difference, *other.difference_range), 2.0)
    assert np.isnan(plain.difference)


def test_rows_stand_in_the_order_of_validation_and_both_texts_hold_them():
    results = {
        "plain": {0: result(same_everywhere(60.0), validation={"mpjpe": 50.0})},
        "flexible": {
            seed: result(same_everywhere(59.0 + seed), validation={"mpjpe": 40.0})
            for seed in (0, 1)
        },
        "later": {},
    }
    rows = pose_table.make("clean_27", 27, results, "plain")
    assert [row.row for row in rows] == ["flexible", "plain"]
    lines = pose_table.to_markdown(rows).splitlines()
    assert lines[2] == (
        "| clean_27 | flexible | 27 | 2 | 59.5 [59.5, 59.5] | 59.5 [59.5, 59.5] | "
        "59.50 [59.50, 59.50] | -0.5 [-0.5, -0.5] | 0.7 | 1,000 | 2.0 | 3.0 | 5 |"
    )
    assert "| reference |  | 1,000 |" in lines[3]
    table = list(csv.DictReader(io.StringIO(pose_table.to_csv(rows))))
    assert [row["row"] for row in table] == ["flexible", "plain"]
    assert (table[0]["mpjpe"], table[0]["milliseconds"]) == ("59.5", "3")
    assert table[1]["difference"] == ""
