"""Drawn actions against anatomy and physics, for several people and draws of each."""

import numpy as np
import pytest

from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.phantom import actions, body

FPS = 50.0
T = np.arange(300) / FPS


def _draw(action, index):
    rng = np.random.default_rng([7, index])
    who = body.make_body(index)
    return who, actions.ACTIONS[action](rng, who, T)


def _at(world, joint):
    return world[:, HUMAN36M.index(joint)]


def _facing(world):
    across = _at(world, "left_hip") - _at(world, "right_hip")
    return np.cross(across, (0, 0, 1)) / np.linalg.norm(across, axis=-1, keepdims=True)


@pytest.fixture(params=actions.ACTIONS)
def drawn(request):
    """The action's name and four drawn motions as (body, motion, world)."""
    draws = [_draw(request.param, index) for index in range(1, 5)]
    return request.param, [(who, move, body.place(who, move, FPS)) for who, move in draws]


def test_bones_keep_their_lengths(drawn):
    for who, _, world in drawn[1]:
        lengths = HUMAN36M.bone_lengths(world)
        expected = np.linalg.norm(who.offsets[1:], axis=-1)
        np.testing.assert_allclose(lengths, np.broadcast_to(expected, lengths.shape), atol=1e-12)


def test_angles_stay_within_natural_limits(drawn):
    inside, total = 0, 0
    for _, motion, _ in drawn[1]:
        for name, curve in motion.angles.items():
            low, high = body.LIMITS[name.removeprefix("right_").removeprefix("left_")]
            inside += np.sum((curve >= low) & (curve <= high))
            total += curve.size
    assert inside / total > 0.98


def test_the_lower_foot_is_on_the_floor_unless_it_jumps(drawn):
    action, motions = drawn
    for who, motion, world in motions:
        ankles = np.minimum(_at(world, "left_ankle")[:, 2], _at(world, "right_ankle")[:, 2])
        above = ankles - who.ankle
        assert above.min() > -0.02
        assert np.all(above <= motion.lift + 1e-9)
        assert (motion.lift.max() > 0.02) == (action in ("run", "jump"))
        assert world[..., 2].min() > 0


def test_people_stay_upright_and_in_the_room(drawn):
    for _, _, world in drawn[1]:
        assert np.all(_at(world, "head")[:, 2] > _at(world, "hip")[:, 2] + 0.1)
        assert np.abs(world[..., :2]).max() < 3.0


def test_motion_is_smooth(drawn):
    for _, _, world in drawn[1]:
        speed = np.linalg.norm(np.diff(world, axis=0), axis=-1) * FPS
        assert speed.max() < 16  # m/s; the hand or foot of a fast runner
        acceleration = np.linalg.norm(np.diff(world, 2, axis=0), axis=-1) * FPS**2
        assert np.percentile(acceleration, 99.9) < 400


def test_knees_point_forward(drawn):
    for _, _, world in drawn[1]:
        for side in ("left", "right"):
            hip, knee, ankle = (_at(world, f"{side}_{name}") for name in ("hip", "knee", "ankle"))
            thigh, shin = knee - hip, ankle - knee
            bend = np.cross(thigh, shin)
            across = _at(world, "left_hip") - _at(world, "right_hip")
            # A knee that bends backward turns the shin about the axis from right to left.
            turned = np.sum(bend * across, -1) / np.linalg.norm(across, axis=-1)
            assert turned.min() > -0.02


@pytest.mark.parametrize("action", ["walk", "run"])
def test_walking_goes_where_the_body_faces(action):
    for index in range(1, 5):
        who, motion = _draw(action, index)
        world = body.place(who, motion, FPS)
        speed = np.diff(_at(world, "hip"), axis=0) * FPS
        forward = np.sum(speed * _facing(world)[1:], axis=-1)
        assert np.mean(forward > 0) > 0.98
        low, high = {"walk": (0.4, 2.0), "run": (1.2, 4.0)}[action]
        assert low < forward.mean() < high


def test_one_foot_of_a_walker_holds_while_the_other_swings():
    for index in range(1, 5):
        world = body.place(*_draw("walk", index), FPS)
        speed = np.linalg.norm(np.diff(world[:, [3, 6]], axis=0), axis=-1) * FPS
        assert np.median(speed.min(axis=1)) < 0.4
        assert np.median(speed.max(axis=1)) > 1.2


def test_a_stander_does_not_slide():
    for action in ("squat", "sit", "wave"):
        world = body.place(*_draw(action, 2), FPS)
        assert np.ptp(world[:, [3, 6], :2], axis=0).max() < 0.2


def test_arms_swing_against_the_legs():
    for index in range(1, 5):
        who, motion = _draw("run", index)
        world = body.place(who, motion, FPS)
        ahead = [np.sum((_at(world, joint) - _at(world, "hip")) * _facing(world), axis=-1)
                 for joint in ("left_wrist", "left_ankle")]
        assert np.corrcoef(ahead)[0, 1] < -0.5


def test_each_action_does_what_its_name_says():
    for index in range(1, 5):
        worlds = {name: body.place(*_draw(name, index), FPS) for name in actions.ACTIONS}
        legs = -body.make_body(index).offsets[[2, 3], 2].sum()
        assert np.ptp(worlds["squat"][:, 0, 2]) > 0.25 * legs
        assert np.ptp(worlds["sit"][:, 0, 2]) > 0.3 * legs
        assert np.ptp(worlds["wave"][:, 0, 2]) < 0.1
        assert worlds["jump"][:, [3, 6], 2].min(axis=1).max() > 0.15
        facing = _facing(worlds["turn"])
        turned = np.unwrap(np.arctan2(facing[:, 1], facing[:, 0]))
        assert np.abs(turned - turned[0]).max() > np.radians(45)
        raised = worlds["wave"][:, [13, 16], 2].max(axis=1) - worlds["wave"][:, 8, 2]
        assert raised.max() > 0.05


def test_headings_are_diverse_and_draws_differ():
    starts, first = [], []
    for index in range(1, 25):
        _, motion = _draw("sit", index)
        starts.append(motion.heading[0])
        first.append(motion.angles["left_knee"].mean())
    assert np.abs(np.exp(1j * np.array(starts)).mean()) < 0.5
    assert len(np.unique(first)) == 24
    again = _draw("sit", 3)[1].angles["left_knee"]
    assert np.array_equal(again, _draw("sit", 3)[1].angles["left_knee"])
