"""`jaxcxr predict` from a toy run: what it writes, windows without seams, and every mistake."""

import contextlib
import csv
import json
import re
import shutil

import jax
import numpy as np
import pytest

from jaxcxr import __main__ as commands
from jaxcxr import config as base
from jaxcxr.deploy.bundle import archive, from_run
from jaxcxr.deploy.predict.lifter import Lifter
from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import pose_arrays
from jaxcxr.pose.formats import bvh, bvh_export
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.keypoints import gaps, keypoint_files
from jaxcxr.pose.player import motions
from jaxcxr.train import checkpoint, loop, setup
from tests import toys
from tests.train.runs import toy_run

FRAMES = 9


def write_run(workdir, config):
    """A run whose checkpoints at step 1 and 4 are of two stages; that of step 4 is the better."""
    rng = np.random.default_rng(0)
    run = setup.make(config)
    with run.mesh_context():
        checkpoints = checkpoint.Checkpoints(workdir, config)
        data = loop.pipeline.train_iterator(run.task.source("train"), config)
        state = run.first_state()
        for step, stage, score in ((1, 0, 9.0), (4, 1, 5.0)):
            if stage:
                state = run.enter_stage(state, run.stages[stage])
            params = jax.tree.map(
                lambda leaf: leaf + rng.normal(scale=0.1, size=leaf.shape).astype(np.float32),
                state.params,
            )
            state = state.replace(params=params, ema=jax.tree.map(lambda leaf: leaf / 2, params))
            checkpoints.save(step, state, data, {"mpjpe": score})
        checkpoints.wait()
        checkpoints.close()
    checkpoint.write_config(workdir, config)
    records = [{"step": stage.start, "kind": "stage", "name": stage.name} for stage in run.stages]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return run, jax.device_get(state)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A toy run: (workdir, its setup, its state)."""
    workdir = tmp_path_factory.mktemp("runs") / "toy"
    workdir.mkdir()
    with toy_run():
        return workdir, *write_run(workdir, toys.two_stages())


@pytest.fixture(scope="module")
def lifter(trained):
    return Lifter(trained[0])


def points(frames, joints=17, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.uniform(50, 300, (1, joints, 2)) + np.cumsum(rng.normal(0, 3, (frames, 1, 2)), 0)
    return values + rng.normal(0, 1, (frames, joints, 2))


def write_npz(path, values, **more):
    np.savez(path, keypoints=values, **{"joint_set": "human36m", "image_size": (400, 300), **more})
    return path


def loaded(path):
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def call(workdir, *arguments, code=0):
    with pytest.raises(SystemExit) if code else contextlib.nullcontext() as stopped:
        commands.run(["predict", f"--workdir={workdir}", *map(str, arguments)])
    assert not code or stopped.value.code == code


def test_the_best_checkpoint_and_the_average_of_its_parameters(trained, lifter):
    _, _, state = trained
    assert "step 4" in lifter.description
    got = jax.tree.leaves(jax.device_get(lifter._variables["params"]))
    for a, b in zip(got, jax.tree.leaves(state.ema), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_video_of_one_window_is_what_the_model_gives(trained, lifter, tmp_path):
    _, run, state = trained
    video = keypoint_files.read(write_npz(tmp_path / "a.npz", points(FRAMES - 2), fps=50.0))
    (person,) = lifter.lift(video, video.tracks)
    inputs = np.zeros((1, FRAMES, 17, 3), np.float32)
    inputs[0, : FRAMES - 2, :, :2] = video.tracks[0].keypoints / 200 - np.array([1, 0.75])
    inputs[0, : FRAMES - 2, :, 2] = 1
    mask = np.arange(FRAMES)[None] < FRAMES - 2
    variables = {"params": state.ema, "batch_stats": state.batch_stats}
    expected = run.model.apply(variables, inputs, mask=mask, train=False)
    np.testing.assert_allclose(person.joints, expected[0, : FRAMES - 2], atol=1e-5)


def test_a_constant_model_leaves_no_seam_in_files_of_any_length(lifter, tmp_path, monkeypatch):
    constant = np.random.default_rng(1).normal(size=(17, 3)).astype(np.float32)

    def predicted(run, variables, source):
        return {"joints": np.broadcast_to(constant, (len(source), FRAMES, 17, 3))}

    monkeypatch.setattr(loop, "predict", predicted)
    for frames, fps in ((1, 50), (8, 30), (9, 50), (10, 25), (23, 60), (140, 29.97)):
        path = write_npz(tmp_path / "a.npz", points(frames), fps=float(fps))
        video = keypoint_files.read(path)
        (person,) = lifter.lift(video, video.tracks)
        assert person.joints.shape == (frames, 17, 3)
        np.testing.assert_allclose(person.joints, np.broadcast_to(constant, person.joints.shape),
                                   rtol=1e-6)


def test_models_that_lift_the_middle_frame_see_one_window_for_each(trained, tmp_path):
    """The output is the middle of the window about each frame, ends repeated."""
    _, run, state = trained
    config = toys.two_stages()
    with config.unlocked():
        config.data.target = "center"
    shutil.copytree(trained[0], tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    checkpoint.write_config(tmp_path / "run", config)
    video = keypoint_files.read(write_npz(tmp_path / "a.npz", points(12), fps=50.0))
    lifter = Lifter(tmp_path / "run")
    (person,) = lifter.lift(video, video.tracks)
    screen = video.tracks[0].keypoints / 200 - np.array([1, 0.75])
    around = np.clip(np.arange(12)[:, None] + np.arange(FRAMES) - FRAMES // 2, 0, 11)
    inputs = np.concatenate([screen, np.ones((12, 17, 1))], -1)[around].astype(np.float32)
    expected = run.model.apply(
        {"params": state.ema, "batch_stats": state.batch_stats}, inputs,
        mask=np.ones(around.shape, bool), train=False,
    )
    np.testing.assert_allclose(person.joints, expected[:, FRAMES // 2], atol=1e-5)


def test_root_and_uncertainty_of_models_that_say_them(trained, lifter, tmp_path, monkeypatch):
    def predicted(run, variables, source):
        shape = (len(source), FRAMES, 17)
        joints = np.broadcast_to(np.eye(17, 3, dtype=np.float32), (*shape, 3)) / 10
        return {"joints": joints, "sigma": np.full(shape, 0.03, np.float32),
                "root": np.broadcast_to(np.array([1, 2, 4], np.float32), (*shape[:2], 3))}

    monkeypatch.setattr(loop, "predict", predicted)
    call(trained[0], write_npz(tmp_path / "a.npz", points(30), fps=30.0), "--format=npz,bvh",
         "--out", tmp_path / "out")
    content = loaded(tmp_path / "out" / "a.npz")
    np.testing.assert_allclose(content["root"], np.tile([1000, 2000, 4000], (30, 1)))
    np.testing.assert_allclose(content["sigma"], np.full((30, 17), 30.0), rtol=1e-6)
    motion = bvh.parse((tmp_path / "out" / "a_0.bvh").read_text(), "a_0.bvh")
    np.testing.assert_allclose(motion.positions["Hips"], np.tile([100, -200, -400], (30, 1)))


def test_files_of_several_people(trained, tmp_path, capsys):
    values = np.stack([points(25, seed=1), points(25, seed=2)])
    confidence = np.ones(values.shape[:3])
    confidence[1, :5] = 0
    path = write_npz(tmp_path / "dance.npz", values, confidence=confidence, people=["a", "7"])
    out = tmp_path / "out"
    call(trained[0], path, "--fps=30", "--rotate=0", "--out", out, "--format=npz,csv,bvh")
    said = capsys.readouterr().out
    assert "[1/1] dance.npz: 2 people, 45 poses at 30 fps from human36m" in said
    content = loaded(out / "dance.npz")
    assert content["unit"] == "mm"
    assert "y down" in str(content["axes"])
    assert tuple(content["joints"]) == HUMAN36M.joints
    assert content["fps"] == 30
    assert content["training_fps"] == 50
    assert content["checkpoint"] == 4
    mine = content["sequence"] == "dance/person 7/camera"
    np.testing.assert_array_equal(content["frame"][mine], np.arange(5, 25))
    np.testing.assert_allclose(content["keypoints"][mine], values[1, 5:], rtol=1e-6)
    # `jaxcxr score` reads the file.
    read = pose_arrays.read(out / "dance.npz").sequences
    assert {str(key) for key in read} == {"dance/person a/camera", "dance/person 7/camera"}
    rows = list(csv.DictReader((out / "dance.csv").read_text().splitlines()))
    assert len(rows) == 45
    row = next(row for row in rows if row["id"] == "dance/person a/camera@20")
    assert row["seconds"] == f"{20 / 30:.4f}"
    pose = content["poses"][content["sequence"] == "dance/person a/camera"][20]
    got = [float(row[f"predicted_left_wrist_{axis}"]) for axis in "xyz"]
    np.testing.assert_allclose(got, pose[HUMAN36M.index("left_wrist")], atol=0.051)
    motion = bvh.parse((out / "dance_7_from5.bvh").read_text(), "dance_7_from5.bvh")
    assert motion.times[1] == pytest.approx(1 / 30)
    apart = np.linalg.norm(
        bvh_export.positions(motion) * 1000 - content["poses"][mine], axis=-1
    )
    line = next(line for line in said.splitlines() if "dance_7_from5.bvh" in line)
    assert f"{apart.mean():.1f} mm from the poses on average, {apart.max():.0f} mm at most" in line


def test_gaps_stay_gaps_in_every_output(trained, tmp_path, capsys):
    values = np.concatenate([points(40), np.ones((40, 17, 1))], -1)
    values[8:11, :, 2] = 0  # 0.1 s: filled
    values[20:32, :2] = np.nan  # some joints only
    values[14:34, 4:, 2] = 0  # 0.66 s: absent
    path, out = write_npz(tmp_path / "a.npz", values), tmp_path / "out"
    call(trained[0], path, "--fps=30000/1001", "--rotate=0", "--out", out, "--format=npz,csv,bvh")
    assert "20 poses at 29.97 fps (17 frames seen, 3 filled, 20 absent in gaps)" in (
        capsys.readouterr().out)
    content = loaded(out / "a.npz")
    states = ["seen"] * 8 + ["filled"] * 3 + ["seen"] * 3 + ["absent"] * 20 + ["seen"] * 6
    assert content["state"].tolist() == states
    absent = content["state"] == "absent"
    np.testing.assert_array_equal(np.isnan(content["poses"]).all((1, 2)), absent)
    np.testing.assert_array_equal(np.isfinite(content["poses"]).all((1, 2)), ~absent)
    rows = list(csv.DictReader((out / "a.csv").read_text().splitlines()))
    assert [row["state"] for row in rows] == states
    assert [row["predicted_hip_x"] == "" for row in rows] == absent.tolist()
    lengths = {path.name: len(bvh.parse(path.read_text(), path.name).times)
               for path in out.glob("*.bvh")}
    assert lengths == {"a_0.bvh": 14, "a_0_from34.bvh": 6}
    # The player and `score` read them.
    for file in (out / "a.npz", out / "a.csv"):
        (take,) = motions.read(file)
        assert take.state.tolist() == [gaps.STATES.index(state) for state in states]
        np.testing.assert_array_equal(np.isnan(take.joints).all((1, 2)), absent)
        assert take.fps == pytest.approx(30000 / 1001, rel=1e-3)
    ((numbers, poses),) = pose_arrays.read(out / "a.npz").sequences.values()
    np.testing.assert_array_equal(numbers, np.flatnonzero(~absent))
    assert np.isfinite(poses).all()
    commands.run(["render", str(out / "a.npz"), "--out", str(tmp_path / "a.html")])
    assert re.search(r'"state": ?\[2, ?2', (tmp_path / "a.html").read_text())


def test_confidence_alone_changes_nothing(lifter, tmp_path):
    values, found = points(20), []
    for name, confidence in (("one", 1.0), ("low", 0.3), ("big", 7.3), (
        "random", np.random.default_rng(0).uniform(0.05, 0.95, (20, 17, 1))
    )):
        scored = np.concatenate([values, np.broadcast_to(confidence, (20, 17, 1))], -1)
        video = keypoint_files.read(write_npz(tmp_path / f"{name}.npz", scored, fps=30.0),
                                    rotate=0)
        found.append(lifter.lift(video, video.tracks)[0].joints)
    for joints in found[1:]:
        np.testing.assert_array_equal(joints, found[0])


def test_a_model_of_whole_bodies_refuses_what_was_never_seen(trained, tmp_path, capsys):
    values = np.concatenate([points(20), np.ones((20, 17, 1))], -1)
    values[:, [2, 3], 2] = 0
    path = write_npz(tmp_path / "a.npz", values, fps=30.0)
    call(trained[0], path, "--rotate=0", "--out", tmp_path / "out", code=1)
    assert "right_knee, right_ankle not seen in frames 0 to 19" in capsys.readouterr().out


def test_a_bad_file_is_a_row_and_the_others_go_on(trained, tmp_path, capsys):
    good = write_npz(tmp_path / "a.npz", points(4), fps=50.0)
    bad = write_npz(tmp_path / "b.npz", points(4, 16), fps=50.0)
    (tmp_path / "c").mkdir()
    again = shutil.copy(good, tmp_path / "c" / "a.npz")
    call(trained[0], bad, good, again, "--out", tmp_path / "out", code=1)
    said = capsys.readouterr()
    assert "[1/3] b.npz: failed: " in said.out
    assert "16 points, but the joint set 'human36m' has 17" in said.out
    assert said.err == "jaxcxr: 1 of 3 files could not be used; see above.\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.npz", "a_2.npz"]


def test_one_person(trained, tmp_path, capsys):
    path = write_npz(tmp_path / "a.npz", np.stack([points(4), points(4)]), fps=50.0)
    call(trained[0], path, "--person=1", "--out", tmp_path)
    assert set(loaded(tmp_path / "a.npz")["sequence"]) == {"a/person 1/camera"}
    call(trained[0], write_npz(path, points(4), fps=50.0), "--person=1", "--out", tmp_path, code=1)
    assert "no person '1'; its people: 0" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    (["--format=fbx"], "formats of poses: npz, csv, bvh"),
    (["--size=1920"], "such as 1920x1080"), (["--size=0x1080"], "such as 1920x1080"),
    (["--fps=0"], "from 1 to 1,000"), (["--fps=fast"], "such as 25 or 30000/1001"),
    (["--fill=-1"], "--fill must be"), (["--min-score=nan"], "--min-score must be"),
    (["--joints=cocoo"], "Did you mean 'coco'"),
    (["none.json"], "no keypoints at none.json"),
])
def test_mistakes_in_arguments(tmp_path, capsys, arguments, message):
    path = write_npz(tmp_path / "a.npz", points(4))
    call(tmp_path, *arguments, path, "--out", tmp_path / "out", code=2)
    assert message in capsys.readouterr().err


def test_folders_that_hold_no_pose_run(tmp_path, capsys):
    path = write_npz(tmp_path / "a.npz", points(4))
    call(tmp_path, path, "--out", tmp_path / "out", code=2)
    assert "holds no run" in capsys.readouterr().err
    checkpoint.write_config(tmp_path, toys.xray_config())
    call(tmp_path, path, "--out", tmp_path / "out", code=2)
    assert "is a model of the task 'cxr', which lifts no 2D keypoints" in capsys.readouterr().err
    (tmp_path / "config.json").unlink()
    checkpoint.write_config(tmp_path, base_config())
    call(tmp_path, path, "--out", tmp_path / "out", code=2)
    assert "holds no checkpoint; train first" in capsys.readouterr().err


def base_config():
    config = toys.pose_config()
    base.validate(config)
    return config


@pytest.fixture(scope="module")
def bundle_of(trained, tmp_path_factory):
    """The toy run as a bundle; its prepared data do not exist."""
    workdir = tmp_path_factory.mktemp("bundled") / "toy"
    shutil.copytree(trained[0], workdir)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4, "kind": "test", "mpjpe": 5.5}) + "\n")
    path = workdir.parent / "toy.jaxcxr"
    return from_run.make(workdir, path, "", lambda text: None)


def test_a_bundle_lifts_as_the_run_does(lifter, bundle_of, tmp_path):
    video = keypoint_files.read(write_npz(tmp_path / "a.npz", points(30), fps=50.0))
    (expected,) = lifter.lift(video, video.tracks)
    for source in (bundle_of, bundle_of.path):
        other = Lifter(source)
        (person,) = other.lift(video, video.tracks)
        np.testing.assert_allclose(person.joints, expected.joints, atol=1e-6)
        assert other.about == lifter.about
    assert bundle_of.facts["pose"]["joints"] == list(HUMAN36M.joints)
    assert bundle_of.facts["training"]["manifest"] is None
    assert bundle_of.metrics["scalars"] == {"mpjpe": 5.5}
    with pytest.raises(UserError, match="not of images"):
        bundle_of.logits(np.zeros((1, 8, 8), np.uint8))


def test_the_command_takes_a_bundle(bundle_of, tmp_path, capsys):
    path = write_npz(tmp_path / "a.npz", points(12), fps=50.0)
    commands.run(["predict", f"--model={bundle_of.path}", str(path), f"--out={tmp_path / 'out'}"])
    assert loaded(tmp_path / "out" / "a.npz")["poses"].shape == (12, 17, 3)
    with pytest.raises(SystemExit) as stopped:
        commands.run(["predict", f"--model={bundle_of.path}", str(path), "--heatmaps",
                      f"--out={tmp_path}"])
    assert stopped.value.code == 2
    assert "--heatmaps is not for models of poses" in capsys.readouterr().err


def test_a_bundle_of_poses_is_exported(bundle_of, tmp_path):
    for kind in ("onnx", "stablehlo"):
        out = tmp_path / f"x.{kind}"
        commands.run(["export", f"--model={bundle_of.path}", f"--format={kind}", f"--out={out}"])
        about = json.loads((tmp_path / f"x.{kind}.json").read_text())
        assert about["inputs"]["keypoints"] == ["b", FRAMES, 17, 3, "float32"]
        assert about["pose"]["joints"] == list(HUMAN36M.joints)
        (difference,) = [value for key, value in about.items() if "difference" in key]
        assert difference < 1e-5


def test_weights_of_another_model_are_refused(bundle_of, tmp_path):
    found = archive.read(bundle_of.path)
    config = json.loads(found.files["config.json"])
    config["model"]["options"]["dim"] = 24
    facts = {k: v for k, v in found.facts.items() if k not in ("format", "version", "files")}
    changed = {**found.files, "config.json": json.dumps(config).encode()}
    archive.write(tmp_path / "x", facts, changed)
    with pytest.raises(UserError, match="weights do not fit the model"):
        Lifter(tmp_path / "x")
