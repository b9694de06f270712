"""Files in the exact form of MotionBERT's pickles, from drawn motion, for several tests."""

import pathlib
import pickle

import numpy as np

from jaxcxr.pose.phantom import actions, body
from jaxcxr.pose.sources import human36m

# Subject, action (of Human3.6M's numbers), take; 5/2 of S9 does not count in the protocol.
TRAIN = ((1, 14, 1), (5, 14, 2), (8, 9, 1))
TEST = ((9, 5, 2), (9, 14, 1), (11, 14, 1))


def content(frames: int = 20, cameras=(1, 2)) -> dict:
    """"train" and "test" as the published file has them."""
    return {"train": _part(TRAIN, frames, cameras), "test": _part(TEST, frames, cameras, True)}


def world(subject: int, take: int, frames: int) -> np.ndarray:
    """World positions `[frames, 17, 3]`, metres."""
    who = body.make_body(subject)
    motion = actions.ACTIONS["walk"](np.random.default_rng(take), who, np.arange(frames) / 50)
    return body.place(who, motion, 50.0)


def save(path: pathlib.Path, values: dict) -> pathlib.Path:
    path.write_bytes(pickle.dumps(values))
    return path


def _part(takes, frames, cameras, test=False) -> dict:
    rows: dict[str, list] = {name: [] for name in (
        "joint_2d", "confidence", "joint3d_image", "camera_name", "source", "action",
        "2.5d_factor", "joints_2.5d_image",
    )}
    rng = np.random.default_rng(0)
    for subject, act, take in takes:
        for number in cameras:
            camera = human36m.cameras_of(f"S{subject}")[number - 1]
            joints = 1000 * camera.to_camera(world(subject, take, frames))
            factor = joints[:, 0, 2] / camera.intrinsics.fx  # mm per pixel at the hip
            pixels = camera.intrinsics.project(joints / 1000)
            depth = (joints[..., 2] - joints[:, :1, 2]) / factor[:, None]
            image = np.concatenate([pixels, depth[..., None]], -1)
            rows["joint3d_image"].append(image)
            rows["joint_2d"].append(pixels + rng.normal(0, 2, pixels.shape))
            rows["confidence"].append(rng.uniform(0.5, 1, (frames, 17, 1)))
            rows["camera_name"] += [camera.name] * frames
            rows["source"] += [
                f"s_{subject:02d}_act_{act:02d}_subact_{take:02d}_ca_{number:02d}"] * frames
            rows["2.5d_factor"].append(factor)
            rows["joints_2.5d_image"].append(image * factor[:, None, None])
            rows["action"] += ["Walking"] * frames
    texts = ("camera_name", "source", "action")
    part = {name: np.array(values) if name in texts else np.concatenate(values)
            for name, values in rows.items()}
    if not test:
        for name in ("action", "2.5d_factor", "joints_2.5d_image"):
            del part[name]
    part["source"] = part["source"].tolist()  # the published file has lists here
    return part
