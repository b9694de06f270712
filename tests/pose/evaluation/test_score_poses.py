"""`jaxcxr score --task pose`: every form of file, values computed by hand."""

import csv

import numpy as np
import pytest

from jaxcxr.pose.evaluation import (
    mean_errors,
    pose_arrays,
    pose_errors,
    pose_metrics,
    pose_pairs,
    protocols,
    score_poses,
)
from jaxcxr.pose.evaluation.pose_metrics import METRICS, OF_JOINTS
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.report import tables
from tests.pose.evaluation.pose_scores import KEYS, Folder, refused


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def assert_same(result, expected):
    assert tables.flat(result["overall"]) == pytest.approx(tables.flat(expected["overall"]))


def test_the_values_are_those_of_the_metrics(folder, capsys):
    result = folder.run()
    walking = folder.errors(lambda key: "Walking" in key).mean()
    sitting = folder.errors(lambda key: "Sitting" in key).mean()
    overall = result["overall"]
    assert overall["mpjpe"] == pytest.approx((walking + sitting) / 2)
    assert result["per_action"]["Walking"]["mpjpe"] == pytest.approx(walking)
    first = folder.errors(lambda key: key.endswith("69") and "Walking" in key).mean()
    second = folder.errors(lambda key: key.endswith("69") and "Sitting" in key).mean()
    assert result["per_camera"]["54138969"]["mpjpe"] == pytest.approx((first + second) / 2)

    truth = np.concatenate([1000 * folder.labels[key] for key in KEYS])
    guess = np.concatenate([1000 * folder.predictions[key] for key in KEYS])
    names = np.repeat(KEYS, [len(folder.labels[key]) for key in KEYS])
    kinds = np.array([name.split("/")[1].split(" ")[0] for name in names])
    how = {"average": "action", "actions": kinds}
    angles = pose_errors.bone_angles(protocols.get("vp3d-cpn").parents)
    expected = {
        "p_mpjpe": mean_errors.p_mpjpe(guess, truth, **how),
        "n_mpjpe": mean_errors.n_mpjpe(guess, truth, **how),
        "mpjve": mean_errors.mpjve(guess, truth, sequences=names, **how),
        "acceleration_error": mean_errors.acceleration_error(guess, truth, sequences=names, **how),
        "pck3d": mean_errors.pck3d(guess, truth, **how),
        "auc3d": mean_errors.auc3d(guess, truth, **how),
        "mjae": mean_errors.mjae(guess, truth, angles=angles, **how),
    }
    assert {name: overall[name] for name in expected} == pytest.approx(expected)
    assert overall["mpjve_per_second"] == pytest.approx(50 * overall["mpjve"])
    for name in (metric.name for metric in METRICS):
        low, high = overall[f"{name}_interval"]
        assert low <= overall[name] <= high
    joints = [
        np.mean([mean_errors.weighted_mean(pose_errors.joint_errors(guess, truth)[kinds == kind, j])
                 for kind in ("Walking", "Sitting")])
        for j in range(17)
    ]
    assert [entry["mpjpe"] for entry in result["per_joint"].values()] == pytest.approx(joints)
    assert result["counts"] == {
        "sequences": 16, "motions": 8, "joints_missing": 0, "frames": len(truth),
    }
    assert result["protocol"] == "vp3d-cpn"
    printed = capsys.readouterr().out
    assert "28 parts of the protocol's test set" not in printed
    assert "26 parts of the protocol's test set have no label" in printed
    assert f"{overall['mpjpe']:.2f} [" in printed


def test_the_files_say_the_same(folder):
    result = folder.run()
    with (folder.path / "out/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["protocol"] for row in rows} == {"vp3d-cpn"}
    by_name = {(row["group"], row["name"]): row for row in rows}
    assert len(by_name) == 1 + 2 + 2 + 2 + 17
    sitting = result["per_action"]["Sitting"]
    assert float(by_name["action", "Sitting"]["mpjpe"]) == sitting["mpjpe"]
    high = float(by_name["action", "Sitting"]["mpjpe_interval_high"])
    assert high == sitting["mpjpe_interval"][1]
    assert by_name["joint", "hip"]["mpjve"] == ""
    text = (folder.path / "out/metrics.md").read_text()
    assert "| all (action mean) | " in text
    assert text.startswith("protocol vp3d-cpn: ")


def test_a_perfect_prediction_scores_perfectly(folder):
    folder.save(predictions=folder.labels)
    overall = folder.run()["overall"]
    for name in ("mpjpe", "p_mpjpe", "n_mpjpe", "mpjve", "acceleration_error", "mjae"):
        assert overall[name] == pytest.approx(0, abs=1e-9)
        assert overall[f"{name}_interval"] == pytest.approx([0, 0], abs=1e-9)
    assert overall["pck3d"] == overall["auc3d"] == 1


def test_two_frames_by_hand():
    protocol = protocols.get("motion-phantom")
    truth = np.zeros((2, 17, 3))
    truth[:, :, 0] = 100 * np.arange(17)
    guess = truth.copy()
    guess[0, 5, 1] = 170.0  # of 34 joints one is 170 mm off
    pairs = {pose_arrays.Key("S6", "Wave", "0"): pose_pairs.Pair(np.arange(2), truth, guess)}
    result = score_poses.score(pairs, protocol, resamples=10)
    overall = result["overall"]
    assert overall["mpjpe"] == pytest.approx(5)
    assert overall["mpjve"] == pytest.approx(10)
    assert overall["pck3d"] == pytest.approx(33 / 34)
    assert overall["auc3d"] == pytest.approx(33 / 34)
    assert result["per_joint"]["left_knee"]["mpjpe"] == pytest.approx(85)
    assert overall["acceleration_error"] is None
    assert overall["mpjpe_interval"] is None
    assert result["test_set"]["absent"] == ["S7"]
    assert "n/a" in score_poses.to_text(result)


def test_one_array_with_an_index_is_the_same_in_any_order(folder):
    expected = folder.run()
    rng = np.random.default_rng(1)
    for name, poses in (("labels", folder.labels), ("guess", folder.predictions)):
        parts = [key.split("/") for key in KEYS for _ in poses[key]]
        order = rng.permutation(len(parts))
        subject, action, camera = np.array(parts)[order].T
        np.savez(
            folder.path / f"{name}.npz", poses=np.concatenate([poses[k] for k in KEYS])[order],
            subject=subject, action=action, camera=camera,
            frame=np.concatenate([np.arange(len(poses[k])) for k in KEYS])[order],
        )
    assert_same(folder.run(), expected)


def test_frames_are_matched_by_number_and_velocities_stop_at_gaps(folder):
    key = "S9/Walking 1/54138969"
    truth, guess = folder.labels[key], folder.predictions[key]
    kept = np.array([0, 1, 4, 5])
    np.savez(folder.path / "labels.npz", poses=truth[kept], sequence=[key] * 4, frame=kept)
    np.savez(folder.path / "guess.npz", poses=guess, sequence=[key] * 6, frame=np.arange(6))
    overall = folder.run()["overall"]
    runs = ["a", "a", "b", "b"]
    assert overall["mpjpe"] == pytest.approx(1000 * mean_errors.mpjpe(guess[kept], truth[kept]))
    assert overall["mpjve"] == pytest.approx(
        1000 * mean_errors.mpjve(guess[kept], truth[kept], sequences=runs)
    )
    assert overall["acceleration_error"] is None


def test_missing_labels_are_left_out(folder, capsys):
    full = folder.run()
    key = KEYS[0]
    folder.labels[key][2, 4] = np.nan
    folder.predictions[key][2, 4] = np.nan
    folder.save()
    result = folder.run()
    assert result["counts"]["joints_missing"] == 1
    assert "1 joints are missing in the labels" in capsys.readouterr().out
    assert result["overall"]["mpjpe"] != full["overall"]["mpjpe"]
    for name in (metric.name for metric in METRICS):
        assert result["overall"][name] == pytest.approx(full["overall"][name], rel=0.05)


def test_a_joint_that_nobody_labelled_is_na_in_every_table(folder, capsys):
    for key in KEYS:
        folder.labels[key][:, 5] = np.nan
    folder.save()
    result = folder.run()
    name, joint = list(result["per_joint"].items())[5]
    assert all(joint[m.name] is None and joint[m.interval] is None for m in OF_JOINTS)
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    assert line.split()[1:] == ["n/a"] * len(OF_JOINTS)
    with (folder.path / "out" / "metrics.csv").open(newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["name"] == name]
    assert {row[m.name] for m in METRICS} == {""}


def test_sequences_without_any_label_have_no_metric():
    protocol = protocols.get("vp3d-cpn")
    blank = np.full((4, len(protocol.joints), 3), np.nan)
    pairs = {pose_arrays.parse_key(key, "test"): pose_pairs.Pair(np.arange(4), blank, blank + 1)
             for key in KEYS[:2]}
    result = score_poses.score(pairs, protocol, 20)
    assert {result["overall"][m.name] for m in METRICS} == {None}
    assert result["overall"]["mpjve_per_second"] is None
    line = score_poses.to_text(result).splitlines()[-1 - len(protocol.joints) - 2]
    assert line.split()[-len(METRICS):] == ["n/a"] * len(METRICS)


def test_a_single_exported_array_needs_its_name(folder, capsys):
    key = KEYS[3]
    np.save(folder.path / "one.npy", folder.predictions[key])
    np.savez(folder.path / "labels.npz", **{key: folder.labels[key]})
    result = folder.run("--sequence", key, predictions="one.npy")
    assert result["overall"]["mpjpe"] == pytest.approx(folder.errors(lambda k: k == key).mean())
    message = refused(capsys, lambda: folder.run(predictions="one.npy"))
    assert "add --sequence" in message


def test_units_are_those_of_the_file_the_option_or_the_protocol(folder, capsys):
    expected = folder.run()
    in_mm = {key: 1000 * value for key, value in folder.predictions.items()}
    folder.save(predictions=in_mm)
    message = refused(capsys, folder.run)
    assert "guess.npz: the median pose measures" in message
    assert "--predictions-unit mm" in message
    assert_same(folder.run("--predictions-unit", "mm"), expected)
    folder.save(predictions={**in_mm, "unit": "mm"})
    assert_same(folder.run(), expected)
    assert "says that its unit is mm" in refused(
        capsys, lambda: folder.run("--predictions-unit", "m")
    )
    folder.save(predictions={**in_mm, "unit": "cm"})
    assert "unit is 'cm'; m and mm are known" in refused(capsys, folder.run)
    folder.save(predictions=in_mm)
    message = refused(
        capsys, lambda: folder.run("--labels-unit", "mm", "--predictions-unit", "mm")
    )
    assert "labels.npz: the median pose measures" in message
    assert "--labels-unit m" in message


def test_a_collapsed_prediction_is_no_matter_of_units(folder):
    folder.save(predictions={key: 0 * value for key, value in folder.labels.items()})
    overall = folder.run()["overall"]
    assert overall["p_mpjpe"] < overall["mpjpe"]
    assert overall["n_mpjpe"] == pytest.approx(overall["mpjpe"])


def test_the_test_set_is_the_protocols(folder, capsys):
    expected = folder.run()
    extra = {"S1/Walking 1/54138969": folder.labels[KEYS[0]], "S9/Unseen/0": folder.labels[KEYS[0]]}
    folder.save(labels=folder.labels | extra, predictions=folder.predictions | extra)
    result = folder.run()
    assert_same(result, expected)
    assert result["test_set"]["labels_left_out"] == list(extra)
    assert result["test_set"]["predictions_ignored"] == list(extra)
    assert "2 labelled sequences are not of the test set" in capsys.readouterr().out
    message = refused(capsys, lambda: folder.run(protocol="cmu-subjects"))
    assert "none of its sequences" in message
    assert "subjects 03, 11" in message


def test_motionberts_names_and_its_takes_left_out(folder):
    poses = {
        f"s_{subject:02d}_act_{act:02d}_subact_{take:02d}_ca_01": folder.labels[KEYS[0]] * 1000
        for subject, act, take in ((9, 5, 1), (9, 5, 2), (9, 12, 1), (11, 5, 2))
    }
    folder.save(labels=poses, predictions=poses)
    result = folder.run(protocol="motionbert-sh")
    assert result["counts"]["sequences"] == 3
    assert result["test_set"]["labels_left_out"] == ["S9/Greeting 2/54138969"]
    assert list(result["per_action"]) == ["Greeting", "Photo"]


def test_the_root_is_treated_as_the_protocol_says(folder, capsys):
    moved = {key: value + np.array([0.03, 0.04, 0]) for key, value in folder.labels.items()}
    folder.save(predictions=moved)
    assert folder.run()["overall"]["mpjpe"] == pytest.approx(50)
    subtracted = folder.run("--labels-unit", "m", "--predictions-unit", "m",
                            protocol="motionbert-sh")
    assert subtracted["overall"]["mpjpe"] == pytest.approx(0, abs=1e-9)
    away = {key: value + np.array([0, 0, 5.0]) for key, value in folder.labels.items()}
    folder.save(labels=away)
    assert folder.run()["overall"]["mpjpe"] == pytest.approx(
        (folder.errors(lambda k: "Walk" in k).mean() + folder.errors(lambda k: "Sit" in k).mean())
        / 2
    )
    folder.save(predictions=away)
    assert "hip, is 5,000 mm from the origin" in refused(capsys, folder.run)


def test_joints_and_convention_of_mpi_inf_3dhp(folder):
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 300, (5, 17, 3))
    guess = truth.copy()
    guess[:, 15:] += 1e4  # spine and head count in MPJPE alone
    folder.save(labels={"TS1/all/0": truth}, predictions={"TS1/all/0": guess})
    result = folder.run(protocol="mpi-inf-3dhp")
    assert result["overall"]["pck3d"] == 1
    assert result["overall"]["auc3d"] == pytest.approx(30 / 31)
    assert result["overall"]["mpjpe"] == pytest.approx(2 / 17 * 1e4 * 3**0.5)
    assert "mpjve_per_second" not in result["overall"]


def test_results_of_one_protocol_stand_in_one_table(folder, capsys):
    folder.run()
    first = folder.path / "first.json"
    (folder.path / "out/metrics.json").rename(first)
    folder.save(predictions=folder.labels)
    folder.run("--compare", first)
    lines = [line for line in capsys.readouterr().out.splitlines() if "first.json" in line]
    assert len(lines) == 1
    assert "| this | 0.00" in (folder.path / "out/metrics.md").read_text()

    message = refused(capsys, lambda: folder.run("--compare", first, protocol="vp3d-gt"))
    assert "results of several protocols do not belong in one table" in message
    assert f"vp3d-cpn: {first}; vp3d-gt: this" in message
    shorter = {key: value[:-1] for key, value in folder.labels.items()}
    folder.save(labels=shorter, predictions=shorter)
    message = refused(capsys, lambda: folder.run("--compare", first))
    assert "score both on the same frames" in message
    first.write_text("{}")
    assert "not the metrics.json" in refused(capsys, lambda: folder.run("--compare", first))
    first.write_text("{")
    assert "no JSON" in refused(capsys, lambda: folder.run("--compare", first))
    assert "cannot be read" in refused(capsys, lambda: folder.run("--compare", "nothing.json"))


def test_views_and_chunks_are_of_one_motion():
    def motion(name):
        return pose_arrays.parse_key(name, "x.npz").motion

    assert motion("03/03_04_55011271/55011271") == motion("03/03_04_58860488/58860488")
    assert motion("Validate/S1/Walking 1 chunk0/0") == motion("Validate/S1/Walking 1 chunk12/2")
    assert motion("S9/Walking 1/0") != motion("S9/Walking 2/0") != motion("S11/Walking 2/0")


def test_the_bootstrap_of_means_has_the_variance_of_the_mean():
    rng = np.random.default_rng(0)
    n = 6
    values = rng.normal(50, 5, n)
    drawn = pose_metrics.bootstrap(
        values[:, None], np.ones((n, 1)), np.zeros(n), np.arange(n), resamples=40_000
    )
    assert drawn.std() == pytest.approx(values.std(ddof=1) / n**0.5, rel=0.02)
    # Cameras of one motion are drawn together, and add nothing.
    twice = pose_metrics.bootstrap(
        np.tile(values, 2)[:, None], np.ones((2 * n, 1)), np.zeros(2 * n),
        np.tile(np.arange(n), 2), resamples=40_000,
    )
    assert twice.std() == pytest.approx(drawn.std(), rel=0.02)
    # Two actions: the variance of half the sum of both means.
    strata = np.array([0, 0, 0, 1, 1, 1])
    both = pose_metrics.bootstrap(
        values[:, None], np.ones((n, 1)), strata, np.arange(n), resamples=40_000
    )
    expected = sum(values[strata == s].var(ddof=1) / 3 for s in (0, 1)) / 4
    assert both.var() == pytest.approx(expected, rel=0.04)
    alone = pose_metrics.bootstrap(
        values[:, None], np.ones((n, 1)), np.zeros(n), np.zeros(n), resamples=5
    )
    assert np.isnan(alone).all()


def test_files_may_be_in_the_order_of_another_joint_set(folder):
    rng = np.random.default_rng(3)
    names = joint_sets.joint_set("human36m").joints
    poses = rng.normal(0, 0.3, (6, 17, 3))
    guess = poses + rng.normal(0, 0.02, poses.shape)
    for name, key in (("humaneva", "Validate/S1/Walking 1 chunk0/C1"),
                      ("mpi-inf-3dhp", "TS1/test/0")):
        protocol = protocols.get(name)
        own = [names.index(joint) for joint in joint_sets.joint_set(protocol.joint_set).joints]
        folder.save({key: poses[:, own]}, {key: guess[:, own]})
        expected = folder.run("--labels-unit=m", "--predictions-unit=m", protocol=name)
        said = {"joint_set": "human36m", "unit": "m"}
        folder.save({key: poses, **said}, {key: guess, **said})
        assert_same(folder.run(protocol=name), expected)


def test_velocities_are_by_the_rate_of_the_files(folder, capsys):
    expected = folder.run()["overall"]["mpjve"]
    folder.save({**folder.labels, "fps": 25.0})
    overall = folder.run()["overall"]
    assert overall["mpjve"] == expected
    assert overall["mpjve_per_second"] == pytest.approx(25 * expected)
    assert "25 frames per second, the protocol 50: errors per frame" in capsys.readouterr().out
    folder.save({**folder.labels, "fps": 0.0})  # several
    assert "mpjve_per_second" not in folder.run()["overall"]
    assert "have several rates, the protocol 50" in capsys.readouterr().out


def test_rates_and_joint_sets_that_do_not_fit(folder, capsys):
    folder.save({**folder.labels, "fps": 25.0}, {**folder.predictions, "fps": 50.0})
    assert "labels.npz has 25 frames per second" in refused(capsys, folder.run)
    folder.save({**folder.labels, "fps": "fast"})
    assert "fps is 'fast'" in refused(capsys, folder.run)
    folder.save({**folder.labels, "joint_set": "humaneva15"})
    assert "of humaneva15, which has no spine, neck; vp3d-cpn takes" in refused(capsys, folder.run)
    folder.save({key: poses[:, :16] for key, poses in folder.labels.items()}
                | {"joint_set": "mpi_inf_3dhp"})
    assert "of mpi_inf_3dhp, which has 17 joints" in refused(capsys, folder.run)
