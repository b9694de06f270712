"""Statistics of a study against SciPy and by hand; the table as text."""

import csv
import io
import math

import numpy as np
from scipy import stats

from jaxcxr.study import study_table

RNG = np.random.default_rng(0)


def result(test, validation=0.5, parameters=1000, flops=2e6):
    return {"monitor": "auroc", "test": {"auroc": test}, "validation": {"auroc": validation},
            "parameters": parameters, "flops": flops, "steps": 100, "batch_size": 32,
            "examples_per_second": 640.0, "learned": {}}


def by_seed(tests, **same):
    return {seed: result(test, **same) for seed, test in enumerate(tests)}


def example(higher=True):
    return study_table.make("xrays", {
        "small": by_seed([0.70, 0.72, 0.74], validation=0.8),
        "large": by_seed([0.80, 0.81, 0.84], validation=0.7),
        "gated": by_seed([0.71, 0.75, 0.76], parameters=1001),
        "wider": by_seed([0.60, 0.62], parameters=1002, flops=3e6),
        "later": {},
    }, ("small", "large"), higher)


def test_the_reference_is_the_best_on_validation_not_on_test():
    assert example().reference == "small"
    assert example(higher=False).reference == "large"


def test_the_reference_is_one_of_those_with_most_seeds():
    rows = {"small": by_seed([0.7, 0.7], validation=0.6), "large": by_seed([0.8], validation=0.9)}
    assert study_table.make("x", rows, ("small", "large"), True).reference == "small"


def test_rows_hold_what_the_runs_had():
    table = example()
    small, large, gated, wider = table.rows
    assert table.missing == ("later",)
    assert [row.seeds for row in table.rows] == [3, 3, 3, 2]
    assert math.isnan(small.difference.value)
    assert math.isnan(small.p)
    np.testing.assert_allclose(gated.difference.value, 0.02)
    p = stats.ttest_rel([0.71, 0.75, 0.76], [0.70, 0.72, 0.74]).pvalue
    np.testing.assert_allclose(gated.p, p)  # the other row's differences are equal: no test
    assert math.isnan(wider.p)
    assert math.isnan(large.p)
    np.testing.assert_allclose(wider.difference.value, -0.10)
    assert (wider.parameters, wider.flops, wider.seconds) == (1002, 3e6, 5.0)


def test_parameters_that_differ_by_more_than_a_thousandth_are_flagged():
    assert [row.unequal for row in example().rows] == [False, False, False, True]
    text = study_table.to_markdown(example())
    assert "| 1,001 |" in text
    assert "| 1,002 (unequal) |" in text


def test_markdown_by_hand():
    lines = study_table.to_markdown(example()).splitlines()
    assert lines[0] == "**xrays**, reference small"
    assert lines[2].startswith("| row | seeds | auroc (more is better) | difference | p |")
    # t of 2 degrees of freedom 4.3027, standard error 0.02 / sqrt 3
    assert lines[4] == (
        "| small | 3 | 0.7200 [0.6703, 0.7697] | reference | n/a | 1,000 | 2.00 | 5.0 |"
    )
    assert lines[-2] == "Reference: the best on validation of small, large."
    assert lines[-1] == "Not finished: later."


def test_one_seed_says_so():
    table = study_table.make("xrays", {"a": by_seed([0.7]), "b": by_seed([0.6])}, ("a",), True)
    text = study_table.to_markdown(table)
    assert "| a | 1 | 0.7000 [n/a] | reference | n/a |" in text
    assert "| b | 1 | 0.6000 [n/a] | -0.1000 [n/a] | n/a |" in text
    assert "Reference: the best" not in text


def test_without_a_finished_reference_nothing_is_compared():
    table = study_table.make("xrays", {"a": {}, "b": by_seed([0.6, 0.7])}, ("a",), True)
    assert table.reference == ""
    text = study_table.to_markdown(table)
    assert text.startswith("**xrays**, reference not finished")
    assert "| n/a | n/a | 1,000 |" in text
    assert "Not finished: a." in text


def test_csv_holds_every_figure_and_nothing_for_what_is_not_known():
    rows = list(csv.DictReader(io.StringIO(study_table.to_csv(example()))))
    assert [row["row"] for row in rows] == ["small", "large", "gated", "wider"]
    assert {row["reference"] for row in rows} == {"small"}
    assert rows[0]["difference"] == rows[0]["p_holm"] == ""
    np.testing.assert_allclose(float(rows[2]["difference"]), 0.02)
    np.testing.assert_allclose(float(rows[3]["parameters_off"]), 0.002)
    assert [row["unequal"] for row in rows] == ["0", "0", "0", "1"]


def test_large_values_have_fewer_decimals():
    table = study_table.make("poses", {"a": by_seed([82.125, 84.5])}, ("a",), False)
    assert "| a | 2 | 83.31 [" in study_table.to_markdown(table)
    assert "auroc (less is better)" in study_table.to_markdown(table)


def test_what_heads_learned_is_told_over_layers_and_seeds():
    odds = math.log(11)  # beyond it a gate is exactly 0 or 1 (Louizos et al. 2018)
    results = [
        {"learned": {"a/group_0/span": [0.25, 1.5], "b/group_0/span": [0.5, 0.1]}},
        {"learned": {"a/group_0/span": [0.0]}},
        {"learned": {"a/group_1/gate": [odds + 0.01, odds - 0.01, 0.01 - odds, -0.01 - odds]}},
        {"learned": {"a/group_0/alpha": [0.0, math.log(3)]}},
    ]
    assert study_table.learned_text(results) == (
        "spans over the limit 0.00 to 1.00, median 0.25; orders of entmax 1.50 to 1.75, median "
        "1.62; gates closed 1, fully open 1 of 4"
    )
    assert study_table.learned_text([{"learned": {}}]) == ""
    gated = {0: {**result(0.7), "learned": results[2]["learned"]}}
    table = study_table.make("x", {"plain": by_seed([0.7]), "gates": gated}, ("plain",), True)
    assert table.learned.keys() == {"gates"}
    text = study_table.to_markdown(table)
    assert "Learned by gates: gates closed 1, fully open 1 of 4." in text


def test_a_metric_that_is_undefined_in_a_row_is_na_there_and_never_the_reference():
    empty = {0: {**result(0.7), "test": {}, "validation": {}}}
    for higher in (True, False):
        table = study_table.make("x", {"none": empty, "a": by_seed([0.7]), "b": by_seed([0.6])},
                                 ("none", "a"), higher)
        assert table.reference == "a"
        assert "| none | 1 | n/a | n/a | n/a |" in study_table.to_markdown(table)
        rows = list(csv.DictReader(io.StringIO(study_table.to_csv(table))))
        assert rows[0]["mean"] == rows[0]["validation"] == rows[0]["difference"] == ""
    alone = study_table.make("x", {"none": empty}, ("none",), True)
    assert alone.reference == ""
    assert "| none | 1 | n/a |" in study_table.to_markdown(alone)
