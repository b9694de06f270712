"""Cameras against OpenCV and against plain geometry."""

import cv2
import numpy as np
import pytest

from jaxcxr.pose.geometry import cameras


def _in_view(rng, count=500, angle=0.41):
    spread = np.tan(angle) / np.sqrt(2)
    points = rng.uniform(-spread, spread, (count, 3))
    points[:, 2] = 1
    return points * rng.uniform(1, 8, (count, 1))


@pytest.mark.parametrize("name", cameras.HUMAN36M_INTRINSICS)
def test_projection_is_opencvs(name):
    lens = cameras.HUMAN36M_INTRINSICS[name]
    fx, fy, cx, cy, k1, k2, k3, p1, p2 = np.float64(lens.vector())
    points = _in_view(np.random.default_rng(0))
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    order = np.array([k1, k2, p1, p2, k3])
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, order)
    np.testing.assert_allclose(lens.project(points), expected[:, 0], atol=1e-3)


def test_tangential_coefficients_are_not_exchanged():
    # p1 alone bends a point on the vertical axis along it three times as much as one beside it.
    lens = cameras.Intrinsics(1000, 1000, 0, 0, p1=0.01)
    up, side = lens.project(np.array([[0.0, 0.2, 1.0], [0.2, 0.0, 1.0]]))
    assert up - (0, 200) == pytest.approx((0, 3 * 0.01 * 0.04 * 1000))
    assert side - (200, 0) == pytest.approx((0, 0.01 * 0.04 * 1000))


@pytest.mark.parametrize("lens", cameras.HUMAN36M_INTRINSICS.values())
def test_videopose3ds_projection_differs_by_less_than_a_pixel(lens):
    points = _in_view(np.random.default_rng(1), 2000)
    xy = points[:, :2] / points[:, 2:]
    r2 = (xy**2).sum(-1, keepdims=True)
    radial = 1 + lens.k1 * r2 + lens.k2 * r2**2 + lens.k3 * r2**3
    tangential = np.array([lens.p2, lens.p1])
    bent = xy * (radial + (tangential * xy).sum(-1, keepdims=True)) + tangential * r2
    theirs = bent * (lens.fx, lens.fy) + (lens.cx, lens.cy)
    assert 0.05 < np.abs(theirs - lens.project(points)).max() < 1.0


def test_behind_and_outside_are_unseen():
    camera = cameras.human36m_rig()[0]
    points = np.array([[0, 0, 3.0], [0, 0, -3.0], [5.0, 0, 3.0], [0, 0, 0]])
    pixels, seen = camera.see(points)
    assert seen.tolist() == [True, False, False, False]
    assert np.array_equal(pixels[1:], np.zeros((3, 2)))
    assert np.isnan(camera.intrinsics.project(points[1])).all()


def test_look_at_centres_the_target_and_stands_upright():
    target = np.array([0.3, -0.2, 1.0])
    lens = cameras.HUMAN36M_INTRINSICS["55011271"]
    camera = cameras.look_at("a", lens, (4.0, 2.0, 1.7), target)
    np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.rotation) == pytest.approx(1)
    seen = camera.to_camera(np.stack([target, target + np.array([0, 0, 0.5])]))
    assert seen[0, :2] == pytest.approx((0, 0), abs=1e-12)
    assert seen[0, 2] == pytest.approx(np.linalg.norm(target - (4.0, 2.0, 1.7)))
    assert seen[1, 0] == pytest.approx(0, abs=1e-12)
    assert seen[1, 1] < 0  # y points down
    # Seen from +x, what lies at greater y is on the right.
    plain = cameras.look_at("b", lens, (5.0, 0, 1.0), (0, 0, 1.0))
    assert plain.to_camera(np.array([0, 1.0, 1.0]))[0] == pytest.approx(1)


def test_world_and_camera_frames_are_inverse():
    points = np.random.default_rng(2).normal(size=(5, 17, 3))
    for camera in cameras.human36m_rig():
        back = camera.to_camera(points) @ camera.rotation + camera.position
        np.testing.assert_allclose(back, points, atol=1e-12)


def test_vertical_sight_is_refused():
    lens = cameras.HUMAN36M_INTRINSICS["55011271"]
    with pytest.raises(ValueError, match="vertical"):
        cameras.look_at("a", lens, (0, 0, 5), (0, 0, 0))


@pytest.mark.parametrize("kind", ["human36m", "random"])
@pytest.mark.parametrize("reach", [1.0, 4.0])
def test_rigs_see_the_whole_ball(kind, reach):
    rng = np.random.default_rng(3)
    center = np.array([1.0, 2.0, 1.5])
    if kind == "random":
        rig = cameras.random_rig(rng, 8, center, reach)
    else:
        rig = cameras.human36m_rig(center, reach)
    directions = rng.normal(size=(300, 3))
    ball = center + 0.98 * reach * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    for camera in rig:
        assert camera.see(camera.to_camera(ball))[1].all()


def test_rigs_are_repeatable_and_seeded():
    def positions(seed):
        rig = cameras.random_rig(np.random.default_rng(seed), 3)
        return np.stack([camera.position for camera in rig])

    assert np.array_equal(positions(0), positions(0))
    assert not np.allclose(positions(0), positions(1))
    plain, moved = cameras.human36m_rig(), cameras.human36m_rig(rng=np.random.default_rng(0))
    shifts = [np.linalg.norm(a.position - b.position) for a, b in zip(plain, moved, strict=True)]
    assert min(shifts) > 0
    assert max(shifts) < 1


def test_screen_normalisation_keeps_the_aspect_and_has_an_inverse():
    corners = np.array([[0.0, 0.0], [1000.0, 1002.0], [500.0, 501.0]])
    screen = cameras.normalize_screen(corners, 1000, 1002)
    np.testing.assert_allclose(screen, [[-1, -1.002], [1, 1.002], [0, 0]], atol=1e-12)
    np.testing.assert_allclose((screen + np.array([1, 1.002])) * 1000 / 2, corners)
    assert cameras.normalize_screen(corners.astype(np.float32), 1000, 1002).dtype == np.float32
