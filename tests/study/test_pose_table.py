"""The table of poses: means over seeds, intervals over motions, differences."""

import csv
import io
import math

import numpy as np

from jaxcxr.pose.evaluation import run_errors
from jaxcxr.study import study_table

RNG = np.random.default_rng(0)
KEYS = [f"03/03_{take:02d}/{camera}" for take in (1, 2, 3) for camera in ("a", "b")]


def result(sequences, **changes):
    return {"sequences": sequences, "validation": {"mpjpe": 70.0}, "parameters": 1000,
            "flops": 2e6, "milliseconds": 3.0, "steps": 100, "batch_size": 32,
            "examples_per_second": 640.0, **changes}


def same_everywhere(error, frames=4):
    """Sums of a run whose error is `error` mm in every joint of every frame."""
    return {key: {name: [17 * frames * error, 17 * frames] for name in run_errors.METRICS}
            for key in KEYS}


def test_a_run_alone_has_the_errors_and_intervals_of_its_sequences():
    sums = {key: {name: [17 * 4 * RNG.uniform(50, 90), 17 * 4] for name in run_errors.METRICS}
            for key in KEYS}
    (row,) = study_table.make_poses("clean", 27, {"a": {0: result(sums)}}, "")
    for i, one in enumerate(run_errors.overall(sums).values()):
        np.testing.assert_allclose(one, [row.values[i], *row.ranges[i]], rtol=1e-12)


def test_seeds_are_pooled_and_their_spread_is_told():
    runs = {seed: result(same_everywhere(error)) for seed, error in enumerate((60.0, 70.0, 86.0))}
    (row,) = study_table.make_poses("clean", 27, {"a": runs}, "a")
    assert row.seeds == 3
    assert row.reference
    np.testing.assert_allclose(row.values, 72.0)
    np.testing.assert_allclose(row.spread, np.std([60, 70, 86], ddof=1))
    # no motion differs from another
    np.testing.assert_allclose(row.ranges, 72.0)


def test_the_interval_of_a_difference_is_of_the_same_motions():
    """Motions of very different difficulty, and a row that is 2 mm worse on each of them."""
    easy = {key: {name: [17 * 4 * (10.0 + 90 * i), 17 * 4] for name in run_errors.METRICS}
            for i, key in enumerate(KEYS)}
    worse = {key: {name: [s + 2 * n, n] for name, (s, n) in one.items()}
             for key, one in easy.items()}
    results = {"plain": {0: result(easy)}, "other": {0: result(worse)}}
    plain, other = study_table.make_poses("clean", 27, results, "plain")
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
    rows = study_table.make_poses("clean_27", 27, results, "plain")
    assert [row.row for row in rows] == ["flexible", "plain"]
    lines = study_table.poses_markdown(rows).splitlines()
    assert lines[2] == (
        "| clean_27 | flexible | 27 | 2 | 59.5 [59.5, 59.5] | 59.5 [59.5, 59.5] | "
        "59.50 [59.50, 59.50] | -0.5 [-0.5, -0.5] | 0.7 | 1,000 | 2.0 | 3.0 | 5 |"
    )
    assert "| reference |  | 1,000 |" in lines[3]
    table = list(csv.DictReader(io.StringIO(study_table.poses_csv(rows))))
    assert [row["row"] for row in table] == ["flexible", "plain"]
    assert (table[0]["mpjpe"], table[0]["milliseconds"]) == ("59.5", "3")
    assert table[1]["difference"] == ""


def test_what_no_frame_defines_is_empty():
    """A metric without a single difference between frames, and a row without any label."""
    still = same_everywhere(60.0)
    for one in still.values():
        one["mpjve"] = [0.0, 0]
    blank = {key: {name: [0.0, 0] for name in run_errors.METRICS} for key in KEYS}
    rows = study_table.make_poses("clean", 27, {
        "blank": {0: result(blank, validation={"mpjpe": math.nan})}, "still": {0: result(still)},
    }, "still")
    assert [row.row for row in rows] == ["still", "blank"]  # the undefined one comes last
    first, last = csv.DictReader(io.StringIO(study_table.poses_csv(rows)))
    assert (first["mpjpe"], first["mpjve"], first["mpjve_low"]) == ("60", "", "")
    assert {last[name] for name in (*run_errors.METRICS, "difference")} == {""}
    assert "nan" not in study_table.poses_markdown(rows)
