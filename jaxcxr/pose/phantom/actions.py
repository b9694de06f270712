"""Draws joint-angle trajectories of seven actions.

Each action draws its size, speed, phase and side, and returns smooth curves in degrees (names and
limits: `body.LIMITS`). Hip and knee curves of the gaits follow normative gait data (Winter,
"Biomechanics and motor control of human movement", 2009, chapter 4).
"""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter1d

from jaxcxr.pose.phantom.body import Body, Curves, Motion

_GRAVITY = 9.81  # m/s^2
_TAU = 2 * np.pi


def _bump(phase: np.ndarray, center: float, sharpness: float) -> np.ndarray:
    """Computes a periodic bump of height 1 at `center`, a fraction of the cycle (von Mises)."""
    return np.exp(sharpness * (np.cos(phase - _TAU * center) - 1))


def _wander(rng, t: np.ndarray, size: float, fastest: float = 0.6) -> np.ndarray:
    """Draws a slow variation of standard deviation `size`: five sinusoids below `fastest` Hz."""
    rates = rng.uniform(0.05, fastest, 5)
    phases = rng.uniform(0, _TAU, 5)
    return size * np.sqrt(0.4) * np.sin(_TAU * rates[:, None] * t + phases[:, None]).sum(axis=0)


def _step(t: np.ndarray, start: float, length: float) -> np.ndarray:
    """Computes a minimum-jerk rise from 0 to 1 (Flash and Hogan 1985)."""
    u = np.clip((t - start) / length, 0, 1)
    return u**3 * (10 - 15 * u + 6 * u**2)


def _holds(rng, t: np.ndarray, rise: tuple, hold: tuple, rest: tuple) -> np.ndarray:
    """Draws repeated rise, hold, fall and rest between 0 and 1, durations from ranges in s."""
    level, now = np.zeros_like(t), -rng.uniform(0, sum(rise + hold + rest) / 2)
    while now < t[-1]:
        up, stay, down = rng.uniform(*rise), rng.uniform(*hold), rng.uniform(*rise)
        level += _step(t, now, up) - _step(t, now + up + stay, down)
        now += up + stay + down + rng.uniform(*rest)
    return level


def _sides(rng) -> tuple[str, str]:
    return ("right", "left") if rng.random() < 0.5 else ("left", "right")


def _add(curves: Curves, name: str, values) -> None:
    curves[name] = curves.get(name, 0.0) + values


def _standing(rng, body: Body, t: np.ndarray) -> Curves:
    """Draws standing with small movements of the whole body, to which other curves are added."""
    curves = {name: _wander(rng, t, 2.0) for name in ("pelvis_twist", "spine_side", "spine_twist")}
    curves["pelvis_pitch"] = _wander(rng, t, 1.0)
    curves["pelvis_roll"] = _wander(rng, t, 1.0)
    curves["spine_flex"] = body.stoop + _wander(rng, t, 2.0)
    curves["neck_flex"] = rng.normal(0, 6) + _wander(rng, t, 4.0)
    curves["neck_twist"] = _wander(rng, t, 12.0)
    width = rng.uniform(1, 9)
    for side in ("right", "left"):
        bend = rng.uniform(2, 8)
        curves[f"{side}_knee"] = bend + _wander(rng, t, 1.0)
        curves[f"{side}_hip_flex"] = bend / 2 + _wander(rng, t, 1.0)
        curves[f"{side}_hip_abduct"] = width + _wander(rng, t, 0.5)
        curves[f"{side}_hip_twist"] = rng.uniform(0, 12) + np.zeros_like(t)
        curves[f"{side}_shoulder_flex"] = rng.normal(0, 6) + _wander(rng, t, 3.0)
        curves[f"{side}_shoulder_abduct"] = rng.uniform(5, 15) + _wander(rng, t, 2.0)
        curves[f"{side}_shoulder_twist"] = rng.uniform(-25, 5) + _wander(rng, t, 4.0)
        curves[f"{side}_elbow"] = rng.uniform(8, 30) + _wander(rng, t, 4.0)
    return curves


def _busy_arms(rng, curves: Curves, t: np.ndarray, sides=("right", "left")) -> None:
    """Adds arms held before the body, on the hips, or gesturing now and then."""
    for side in sides:
        level = _holds(rng, t, (0.4, 1.0), (0.5, 3.0), (0.2, 2.5))
        _add(curves, f"{side}_shoulder_flex", rng.uniform(-15, 75) * level)
        _add(curves, f"{side}_shoulder_abduct", rng.uniform(-5, 45) * level)
        _add(curves, f"{side}_shoulder_twist", rng.uniform(-55, 30) * level)
        _add(curves, f"{side}_elbow", rng.uniform(10, 70) * level)


def _facing(rng, t: np.ndarray) -> np.ndarray:
    return rng.uniform(0, _TAU) + np.radians(_wander(rng, t, 5.0))


def _bend_legs(curves: Curves, thigh, shin, pitch) -> None:
    """Bends both legs, feet below: thighs forward and shins back from the vertical."""
    _add(curves, "pelvis_pitch", pitch)
    for side in ("right", "left"):
        _add(curves, f"{side}_hip_flex", thigh + pitch)
        _add(curves, f"{side}_knee", thigh + shin)


def _gait(rng, curves: Curves, phase: np.ndarray, size: dict, vigour: float) -> None:
    """Adds cyclic leg, arm and trunk curves; the right heel strikes at phase 0."""
    for side, shift in (("right", 0.0), ("left", np.pi)):
        own = phase + shift
        swing = size["hip"] * vigour * rng.normal(1, 0.04)
        # With the third harmonic the thigh of the standing leg turns evenly.
        thigh = np.cos(own + 0.15) + 0.1 * np.cos(3 * (own + 0.15))
        _add(curves, f"{side}_hip_flex", size["hip_mean"] + swing * thigh)
        _add(curves, f"{side}_hip_abduct", -3.0 + 2.0 * np.sin(own))
        knee = size["knee_load"] * _bump(own, 0.13, 4.0) + size["knee"] * _bump(own, 0.72, 3.0)
        _add(curves, f"{side}_knee", knee * rng.normal(1, 0.04))
        arm = size["arm"] * vigour * rng.uniform(0.7, 1.3)
        _add(curves, f"{side}_shoulder_flex", size["arm_mean"] - arm * np.cos(own))
        _add(curves, f"{side}_elbow", size["elbow"] - 0.4 * arm * np.cos(own - 0.4))
    _add(curves, "pelvis_twist", size["twist"] * np.cos(phase))
    _add(curves, "spine_twist", -2.0 * size["twist"] * np.cos(phase))
    _add(curves, "pelvis_roll", 3.0 * np.sin(phase))
    _add(curves, "spine_side", -3.0 * np.sin(phase))
    _add(curves, "spine_flex", size["lean"] + 1.5 * np.cos(2 * phase))


def _load(phase: np.ndarray, middle: float) -> np.ndarray:
    """Computes the weight on the right and left foot `[frames, 2]`; right around `middle`."""
    right = 1 / (1 + np.exp(-6 * np.cos(phase - _TAU * middle)))
    return np.stack([right, 1 - right], axis=-1)


def _cycle(rng, t: np.ndarray, rate: float) -> np.ndarray:
    return rng.uniform(0, _TAU) + _TAU * rate * t + _wander(rng, t, 0.15)


def _round(rng, t: np.ndarray, speed: float, radius: tuple) -> np.ndarray:
    """Heading of a walk in curves: a turn of drawn radius (m), reversed now and then."""
    way = np.sign(rng.normal()) * np.ones_like(t)
    if rng.random() < 0.4:
        way *= 1 - 2 * _step(t, rng.uniform(0, t[-1] + 1e-9), 1.0)
    rate = way * speed / rng.uniform(*radius)
    return rng.uniform(0, _TAU) + np.cumsum(rate) * (t[1] - t[0])


def walk(rng: np.random.Generator, body: Body, t: np.ndarray) -> Motion:
    """Draws walking in curves at 0.75 to 1.1 cycles/s."""
    curves, rate = _standing(rng, body, t), rng.uniform(0.75, 1.1)
    size = {
        "hip": rng.uniform(16, 24), "hip_mean": rng.uniform(3, 8), "knee_load": 7.0,
        "knee": rng.uniform(45, 58), "arm": rng.uniform(5, 26), "arm_mean": 0.0,
        "elbow": rng.uniform(5, 25), "twist": rng.uniform(3, 8), "lean": rng.uniform(0, 5),
    }
    phase = _cycle(rng, t, rate)
    _gait(rng, curves, phase, size, body.vigour)
    if rng.random() < 0.3:
        _busy_arms(rng, curves, t, (_sides(rng)[0],))
    heading = _round(rng, t, 1.35 * rate, (0.6, 1.3))
    return Motion(curves, heading, np.zeros_like(t), 0.06, _load(phase, 0.28))


def run(rng: np.random.Generator, body: Body, t: np.ndarray) -> Motion:
    """Draws running in curves at 1.25 to 1.55 cycles/s, with flight phases."""
    curves, rate = _standing(rng, body, t), rng.uniform(1.25, 1.55)
    size = {
        "hip": rng.uniform(24, 34), "hip_mean": rng.uniform(10, 18), "knee_load": 22.0,
        "knee": rng.uniform(75, 105), "arm": rng.uniform(20, 42), "arm_mean": -8.0,
        "elbow": rng.uniform(55, 85), "twist": rng.uniform(5, 10), "lean": rng.uniform(5, 14),
    }
    phase = _cycle(rng, t, rate)
    _gait(rng, curves, phase, size, body.vigour)
    lift = rng.uniform(0.03, 0.09) * (0.5 - 0.5 * np.cos(2 * phase + 0.6))
    heading = _round(rng, t, 2.2 * rate, (0.9, 1.5))
    return Motion(curves, heading, lift, 0.25, _load(phase, 0.2))


def turn(rng: np.random.Generator, body: Body, t: np.ndarray) -> Motion:
    """Draws turning on the spot by 50 to 180 degrees at a time, in small steps."""
    curves = _standing(rng, body, t)
    heading, now = np.full_like(t, rng.uniform(0, _TAU)), -rng.uniform(0, 1)
    while now < t[-1]:
        angle, length = rng.uniform(50, 180), rng.uniform(0.9, 1.8)
        heading += np.sign(rng.normal()) * np.radians(angle) * _step(t, now, length)
        now += length + rng.uniform(0.2, 1.0)
    rate = np.gradient(heading, t)
    effort = gaussian_filter1d(np.abs(rate), 0.1 / (t[1] - t[0]))
    effort = np.tanh(effort / 1.5)
    phase = _cycle(rng, t, rng.uniform(0.9, 1.3))
    for side, shift in (("right", 0.0), ("left", np.pi)):
        raised = effort * _bump(phase + shift, 0.5, 2.0)
        _add(curves, f"{side}_knee", rng.uniform(28, 50) * raised)
        _add(curves, f"{side}_hip_flex", rng.uniform(15, 30) * raised)
        _add(curves, f"{side}_shoulder_flex", -8 * effort * np.cos(phase + shift))
    lead = np.clip(gaussian_filter1d(rate, 0.15 / (t[1] - t[0])), -2, 2)
    _add(curves, "spine_twist", 6 * lead)
    _add(curves, "neck_twist", 12 * lead)
    _busy_arms(rng, curves, t)
    return Motion(curves, heading, np.zeros_like(t))


def squat(rng: np.random.Generator, body: Body, t: np.ndarray) -> Motion:
    """Draws squats, the thighs down to 50 to 90 degrees from the vertical."""
    curves = _standing(rng, body, t)
    level = _holds(rng, t, (0.6, 1.3), (0.0, 1.2), (0.1, 0.9))
    depth = rng.uniform(50, 90) * level
    _bend_legs(curves, depth, rng.uniform(0.3, 0.42) * depth, rng.uniform(0.1, 0.25) * depth)
    _add(curves, "spine_flex", rng.uniform(0.0, 0.4) * depth)
    _add(curves, "neck_flex", -rng.uniform(0.1, 0.3) * depth)
    reach, width = rng.uniform(-0.1, 1.1), rng.uniform(0, 20)
    for side in ("right", "left"):
        _add(curves, f"{side}_hip_abduct", width * level)
        _add(curves, f"{side}_hip_twist", width * level)
        _add(curves, f"{side}_shoulder_flex", reach * depth)
        _add(curves, f"{side}_elbow", rng.uniform(-0.1, 0.8) * depth)
    return Motion(curves, _facing(rng, t), np.zeros_like(t))


def wave(rng: np.random.Generator, body: Body, t: np.ndarray) -> Motion:
    """Draws waving with one hand or sometimes both, the upper arm raised sideways."""
    curves = _standing(rng, body, t)
    side, other = _sides(rng)
    waving = (side, other) if rng.random() < 0.2 else (side,)
    phase = _cycle(rng, t, rng.uniform(0.8, 2.0))
    for arm in waving:
        level = _holds(rng, t, (0.4, 0.9), (1.5, 4.0), (0.2, 1.0))
        swing = rng.uniform(8, 25) * np.sin(phase + rng.uniform(0, 0.6))
        _add(curves, f"{arm}_shoulder_abduct", (rng.uniform(45, 120) + 0.3 * swing) * level)
        _add(curves, f"{arm}_shoulder_flex", rng.uniform(-10, 30) * level)
        _add(curves, f"{arm}_shoulder_twist", (rng.uniform(50, 90) + 0.7 * swing) * level)
        _add(curves, f"{arm}_elbow", (rng.uniform(45, 85) + swing) * level)
        _add(curves, "spine_side", rng.uniform(0, 6) * level * (1 if arm == "left" else -1))
    if len(waving) == 1:
        _busy_arms(rng, curves, t, (other,))
    return Motion(curves, _facing(rng, t), np.zeros_like(t))


def sit(rng: np.random.Generator, body: Body, t: np.ndarray) -> Motion:
    """Draws sitting down, staying seated with moving arms, and standing up."""
    curves = _standing(rng, body, t)
    level = _holds(rng, t, (0.9, 1.6), (1.5, 5.0), (0.3, 1.5))
    thigh = rng.uniform(72, 95) * level
    # The trunk leans forward on the way down and up.
    lean = rng.uniform(25, 45) * 4 * level * (1 - level) + rng.uniform(-12, 8) * level
    _bend_legs(curves, thigh, rng.uniform(-5, 12) * level, lean)
    _add(curves, "spine_flex", rng.uniform(-5, 25) * level)
    apart = rng.uniform(0, 14)
    for side in ("right", "left"):
        _add(curves, f"{side}_hip_abduct", apart * level)
        _add(curves, f"{side}_shoulder_flex", rng.uniform(5, 40) * level)
        _add(curves, f"{side}_elbow", rng.uniform(5, 40) * level)
    _busy_arms(rng, curves, t)
    _add(curves, "spine_twist", _wander(rng, t, 8.0) * level)
    return Motion(curves, _facing(rng, t), np.zeros_like(t))


def jump(rng: np.random.Generator, body: Body, t: np.ndarray) -> Motion:
    """Draws jumping on the spot, 8 to 35 cm high, with swinging arms and parabolic flight."""
    curves, height = _standing(rng, body, t), rng.uniform(0.08, 0.35)
    flight = 2 * np.sqrt(2 * height / _GRAVITY)
    depth, landing = rng.uniform(28, 60), rng.uniform(20, 45)
    arms = rng.uniform(20, 130) * body.vigour
    lift, bend, swing = np.zeros_like(t), np.zeros_like(t), np.zeros_like(t)
    heading, now = _facing(rng, t), rng.uniform(-0.6, 0.6)
    while now < t[-1] + 1:
        u = (t - now) / flight
        lift += 4 * height * np.where((u > 0) & (u < 1), u * (1 - u), 0)
        bend += depth * np.exp(-(((t - now + 0.26) / 0.13) ** 2))
        bend += landing * np.exp(-(((t - now - flight - 0.17) / 0.12) ** 2))
        swing += arms * np.exp(-(((t - now - flight / 2) / (0.3 * flight + 0.08)) ** 2))
        swing -= 0.35 * arms * np.exp(-(((t - now + 0.3) / 0.15) ** 2))
        heading += np.radians(rng.choice([0, rng.uniform(-90, 90)])) * _step(t, now, flight)
        now += flight + rng.uniform(0.75, 1.5)
    _bend_legs(curves, bend, 0.4 * bend, 0.4 * bend)
    sideways = rng.uniform(0, 0.8)
    for side in ("right", "left"):
        _add(curves, f"{side}_shoulder_flex", (1 - sideways) * swing)
        _add(curves, f"{side}_shoulder_abduct", sideways * np.maximum(swing, 0))
        _add(curves, f"{side}_elbow", rng.uniform(0, 0.3) * np.abs(swing))
    return Motion(curves, heading, lift)


ACTIONS: dict[str, Callable[[np.random.Generator, Body, np.ndarray], Motion]] = {
    action.__name__: action for action in (walk, run, turn, squat, wave, sit, jump)
}
