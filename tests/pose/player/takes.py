"""Motions of phantoms as files of predictions."""

import csv

import numpy as np

from jaxcxr.pose.geometry import cameras
from jaxcxr.pose.geometry.skeletons import HUMAN36M
from jaxcxr.pose.phantom import actions, body

SIZE = (1000, 1002)


def walk(seconds=1.0, fps=50.0, seed=0):
    """True and predicted joints `[frames, 17, 3]` (mm, about the hip) and keypoints (pixels)."""
    rng = np.random.default_rng(seed)
    who = body.make_body(1 + seed)
    t = np.arange(round(seconds * fps)) / fps
    world = body.place(who, actions.walk(rng, who, t), fps)
    camera = cameras.human36m_rig()[0]
    seen = camera.to_camera(world)
    keypoints, found = camera.see(seen)
    truth = (seen - seen[:, :1]) * 1000
    drift = np.cumsum(rng.normal(0, 6, truth.shape), 0)
    guess = truth + drift - drift[:, :1]
    return truth, guess, np.concatenate([keypoints, found[..., None]], -1)


def write_npz(path, names=("walk/person 0/camera",), **more):
    """As `jaxcxr predict` writes; returns the true poses by name."""
    parts = [walk(seed=i) for i in range(len(names))]
    frames = [len(truth) for truth, _, _ in parts]
    np.savez(path, **{
        "poses": np.concatenate([guess for _, guess, _ in parts]).astype(np.float32),
        "sequence": np.repeat(names, frames), "frame": np.concatenate([*map(np.arange, frames)]),
        "keypoints": np.concatenate([p[..., :2] for _, _, p in parts]).astype(np.float32),
        "confidence": np.concatenate([p[..., 2] for _, _, p in parts]).astype(np.float32),
        "image_size": SIZE, "fps": 50.0, "unit": "mm", **more,
    })
    return {name: truth for name, (truth, _, _) in zip(names, parts, strict=True)}


def write_csv(path, names=("S9/Walking 1/54138969",), kinds=("true", "predicted")):
    """As a run writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "sequence_id", "subject", "action", "frame", *(
            f"{kind}_{name}_{axis}" for kind in kinds for name in HUMAN36M.joints for axis in "xyz"
        )))
        for i, name in enumerate(names):
            truth, guess, _ = walk(seed=i)
            values = {"true": truth, "predicted": guess}
            for frame in range(len(truth)):
                row = np.concatenate([values[kind][frame].ravel() for kind in kinds])
                writer.writerow((f"{name}@{frame}", name, "S9", "Walking", frame,
                                 *(f"{value:.1f}" for value in row)))
    return path
