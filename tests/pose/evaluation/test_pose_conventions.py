"""What the literature does in several ways, each of them as a named argument."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxcxr.pose.evaluation import mean_errors, pose_errors

# Parents of the 17 joints of Human3.6M.
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
ANGLES = pose_errors.bone_angles(PARENTS)


@pytest.fixture
def poses():
    rng = np.random.default_rng(3)
    target = rng.normal(0, 300, (8, 17, 3))
    return target + rng.normal(0, 60, target.shape), target


def test_a_perfect_prediction_scores_perfectly(poses):
    _, target = poses
    for metric in (mean_errors.mpjpe, mean_errors.n_mpjpe, mean_errors.mpjve,
                   mean_errors.acceleration_error):
        assert metric(target, target) == pytest.approx(0, abs=1e-12)
    assert mean_errors.p_mpjpe(target, target) == pytest.approx(0, abs=1e-10)
    assert mean_errors.mjae(target, target, angles=ANGLES) == 0
    assert mean_errors.pck3d(target, target) == 1
    assert mean_errors.auc3d(target, target) == 1
    assert mean_errors.pck3d(target, target, inclusive=False) == 1
    # Nothing is nearer than 0 mm: the figure that MPI-INF-3DHP's own evaluation cannot exceed.
    assert mean_errors.auc3d(target, target, inclusive=False) == pytest.approx(30 / 31)


def test_the_root_is_compared_subtracted_or_set_to_zero():
    target = np.array([[[0.0, 0, 0], [100, 0, 0], [0, 100, 0]]])
    prediction = target + np.array([3.0, 4, 0])
    assert mean_errors.mpjpe(prediction, target) == pytest.approx(5)
    assert mean_errors.mpjpe(prediction, target, root=0) == pytest.approx(0)
    assert mean_errors.mpjpe(prediction, target, root=0, root_rule="zero") == pytest.approx(10 / 3)
    assert mean_errors.mpjpe(prediction, target + 7, root=(1, 2)) == pytest.approx(0)
    assert mean_errors.n_mpjpe(2 * prediction, target + 7, root=0) == pytest.approx(0)
    assert mean_errors.pck3d(prediction, target, threshold=4) == 0
    assert mean_errors.pck3d(prediction, target, threshold=4, root=0) == 1
    with pytest.raises(ValueError, match="root_rule is 'move'"):
        mean_errors.mpjpe(prediction, target, root=0, root_rule="move")


def test_actions_and_frames_are_averaged_as_asked(poses):
    prediction, target = poses
    actions = np.array(["walk"] * 6 + ["sit"] * 2)
    for metric in (mean_errors.mpjpe, mean_errors.p_mpjpe, mean_errors.n_mpjpe, mean_errors.pck3d,
                   mean_errors.auc3d):
        walk = metric(prediction[:6], target[:6])
        sit = metric(prediction[6:], target[6:])
        frame = metric(prediction, target)
        assert frame == pytest.approx((6 * walk + 2 * sit) / 8)
        mean = metric(prediction, target, average="action", actions=actions)
        assert mean == pytest.approx((walk + sit) / 2)
    with pytest.raises(ValueError, match="needs the actions"):
        mean_errors.mpjpe(prediction, target, average="action")
    with pytest.raises(ValueError, match="average is 'joint'"):
        mean_errors.mpjpe(prediction, target, average="joint")


def test_velocities_stay_within_sequences_and_actions(poses):
    prediction, target = poses
    sequences = np.array(["a"] * 5 + ["b"] * 3)
    parts = (np.s_[:5], np.s_[5:])
    one, other = (mean_errors.mpjve(prediction[part], target[part]) for part in parts)
    both = mean_errors.mpjve(prediction, target, sequences=sequences)
    assert both == pytest.approx((4 * one + 2 * other) / 6)
    by_action = mean_errors.mpjve(
        prediction, target, sequences=sequences, average="action", actions=sequences
    )
    assert by_action == pytest.approx((one + other) / 2)
    assert mean_errors.mpjve(prediction, target) != pytest.approx(both)
    accelerations = [
        mean_errors.acceleration_error(prediction[part], target[part]) for part in parts
    ]
    assert mean_errors.acceleration_error(prediction, target, sequences=sequences) == pytest.approx(
        (3 * accelerations[0] + accelerations[1]) / 4
    )


def test_acceleration_of_a_fall_is_that_of_gravity():
    seconds = np.arange(30) / 50
    target = np.random.default_rng(0).normal(size=(30, 17, 3))
    fall = np.zeros((30, 1, 3))
    fall[:, 0, 2] = -9810 / 2 * seconds**2 + 1000 * seconds + 5
    assert mean_errors.acceleration_error(target + fall, target, fps=50) == pytest.approx(9810)
    assert mean_errors.acceleration_error(target + fall, target) == pytest.approx(9810 / 2500)
    assert np.isnan(mean_errors.acceleration_error(target[:2], target[:2]))
    gap = np.ones(30)
    gap[10] = 0
    broken = target + fall
    broken[10] = np.nan
    assert mean_errors.acceleration_error(broken, target, gap, fps=50) == pytest.approx(9810)


def test_thresholds_include_their_limit_or_do_not():
    target = np.zeros((1, 4, 3))
    prediction = np.zeros((1, 4, 3))
    prediction[0, :, 0] = (0, 75, 150, 151)
    assert mean_errors.pck3d(prediction, target) == 0.75
    assert mean_errors.pck3d(prediction, target, inclusive=False) == 0.5
    assert mean_errors.pck3d(prediction, target, threshold=75) == 0.5
    # Of 31 thresholds 0, 5, ... 150 the joints keep 31, 16, 1 and 0.
    assert mean_errors.auc3d(prediction, target) == pytest.approx((31 + 16 + 1) / 124)
    assert mean_errors.auc3d(prediction, target, inclusive=False) == pytest.approx((30 + 15) / 124)
    curve = [mean_errors.pck3d(prediction, target, threshold=t) for t in range(0, 151, 5)]
    assert mean_errors.auc3d(prediction, target) == pytest.approx(np.mean(curve))


def test_missing_joints_are_left_out_by_weights_and_never_silently(poses):
    prediction, target = poses
    broken, guess = target.copy(), prediction.copy()
    broken[2, 5] = np.nan
    guess[4] = np.nan
    mask = pose_errors.known(broken) & pose_errors.known(guess)
    assert mask.sum() == 17 * 8 - 18
    errors = np.linalg.norm(prediction - target, axis=-1)
    assert mean_errors.mpjpe(guess, broken, mask) == pytest.approx(errors[mask].mean())
    found = mean_errors.per_joint(guess, broken, mask)
    assert found[5] == pytest.approx(errors[mask[:, 5], 5].mean())
    for metric in (mean_errors.mpjpe, mean_errors.p_mpjpe, mean_errors.n_mpjpe, mean_errors.pck3d,
                   mean_errors.auc3d, mean_errors.mpjve,
                   mean_errors.acceleration_error):
        assert np.isfinite(metric(guess, broken, mask))
        assert np.isnan(metric(guess, broken))
    assert np.isfinite(mean_errors.mjae(guess, broken, mask, angles=ANGLES))
    assert np.isnan(mean_errors.mjae(guess, broken, angles=ANGLES))
    # A joint left out has no part in the alignment either.
    kept = [j for j in range(17) if j != 5]
    alone = np.ones((8, 17), bool)
    alone[:, 5] = False
    assert mean_errors.p_mpjpe(prediction, target, alone) == pytest.approx(
        mean_errors.p_mpjpe(prediction[:, kept], target[:, kept])
    )


def test_the_angles_of_a_skeleton_are_pairs_of_bones_that_meet():
    assert len(ANGLES) == 19
    assert pose_errors.bone_angles((-1, 0, 1)) == ((0, 1, 2),)
    bones = {frozenset((child, parent)) for child, parent in enumerate(PARENTS) if parent >= 0}
    for first, corner, last in ANGLES:
        assert {frozenset((first, corner)), frozenset((corner, last))} <= bones


@pytest.mark.parametrize("degrees", [0.0, 1e-7, 30.0, 90.0, 179.9999999, 180.0])
def test_angles_are_exact_to_their_ends(degrees):
    turned = Rotation.from_euler("z", degrees, degrees=True).apply((200.0, 0, 0))
    arm = np.stack([(300.0, 0, 0), (0, 0, 0), turned])
    turn = Rotation.from_rotvec((0.3, -1.0, 0.2))
    assert pose_errors.joint_angles(arm, ((0, 1, 2),)) == pytest.approx(degrees, abs=1e-9)
    turned = turn.apply(arm)
    assert pose_errors.joint_angles(turned, ((0, 1, 2),)) == pytest.approx(degrees, abs=1e-9)


def test_mjae_of_a_bent_elbow_and_of_bones_without_length():
    straight = np.array([[(-1.0, 0, 0), (0, 0, 0), (1, 0, 0)]])
    bent = np.array([[(-1.0, 0, 0), (0, 0, 0), (0, 1, 0)]])
    assert mean_errors.mjae(bent, straight, angles=((0, 1, 2),)) == pytest.approx(90)
    collapsed = np.zeros_like(straight)
    assert mean_errors.mjae(collapsed, straight, angles=((0, 1, 2),)) == pytest.approx(180)
    assert np.isnan(mean_errors.mjae(straight, collapsed, angles=((0, 1, 2),)))


def test_angles_differ_the_short_way_round():
    assert mean_errors.mean_angle_error([179.0], [-179.0]) == pytest.approx(2)
    assert mean_errors.mean_angle_error([350.0, 10.0], [10.0, 10.0]) == pytest.approx(10)
    assert mean_errors.mean_angle_error([720.0], [0.0]) == pytest.approx(0)
    random = np.random.default_rng(0)
    one, other = random.uniform(-720, 720, (2, 100))
    turn = (Rotation.from_euler("z", one[:, None], degrees=True)
            * Rotation.from_euler("z", other[:, None], degrees=True).inv())
    expected = np.degrees(turn.magnitude()).mean()
    assert mean_errors.mean_angle_error(one, other) == pytest.approx(expected)
