"""The torch counterpart of `tests/bench/torch_bench.py` computes what our model and loss do."""

import jax
import numpy as np
import pytest

from jaxcxr import config as base
from jaxcxr import models
from jaxcxr.pose import losses as pose_losses
from jaxcxr.pose.geometry import skeletons
from tests import toys
from tests.bench import train_spec

pytestmark = pytest.mark.oracles

DIM, HEADS = 8, 2


def dense(layer):
    return {"kernel": layer.weight.detach().numpy().T, "bias": layer.bias.detach().numpy()}


def norm(layer):
    return {"scale": layer.weight.detach().numpy(), "bias": layer.bias.detach().numpy()}


def block(torch_block):
    attention = torch_block.attention
    weights = np.split(attention.qkv.weight.detach().numpy(), 3)
    biases = np.split(attention.qkv.bias.detach().numpy(), 3)
    parts = {
        name: {"kernel": w.T.reshape(DIM, HEADS, -1), "bias": b.reshape(HEADS, -1)}
        for name, w, b in zip(("query", "key", "value"), weights, biases, strict=True)
    }
    out = dense(attention.out)
    parts["out"] = {**out, "kernel": out["kernel"].reshape(HEADS, -1, DIM)}
    return {
        "norm1": norm(torch_block.norm1), "norm2": norm(torch_block.norm2), "attention": parts,
        "mlp": {name: dense(getattr(torch_block, name)) for name in ("fc1", "fc2")},
    }


def params_of(network, joint_tokens):
    frames = "frames" if joint_tokens else "blocks"
    backbone = {"embed": dense(network.embed), "norm": norm(network.norm)}
    backbone |= {f"{frames}_{i}": block(b) for i, b in enumerate(network.over_frames)}
    backbone |= {f"joints_{i}": block(b) for i, b in enumerate(network.over_joints)}
    if joint_tokens:
        backbone["joint_embed"] = network.joint_embed.detach().numpy()
    return {"params": {"backbone": backbone, "head": dense(network.head)}}


@pytest.mark.parametrize("name", ["pose_temporal", "pose_spatiotemporal"])
def test_pose_lifter_and_loss(torch, name):
    from tests.bench import torch_peer

    config = toys.pose_config(loss__velocity=0.5)
    base.set_model(config, name, dim=DIM, depth=2, heads=HEADS, drop_path=0.0)
    spec = train_spec.of(config, {"joints": 17}, "cpu", "off")
    network = torch_peer.PoseLifter(spec).eval()
    torch.nn.init.normal_(network.head.weight)
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(-1, 1, (2, config.data.frames, 17, 3)).astype(np.float32)
    model = models.create(name, dim=DIM, depth=2, heads=HEADS, drop_path=0.0)
    params = params_of(network, spec["joint_tokens"])
    found = jax.jit(model.apply)(params, keypoints)
    theirs = network(torch.from_numpy(keypoints))
    np.testing.assert_allclose(found, theirs.detach().numpy(), atol=2e-5)

    target = rng.normal(size=found.shape).astype(np.float32)
    losses = pose_losses.Losses(("position", "velocity"), skeletons.HUMAN36M, np.ones(17))
    known = np.ones(found.shape[:2], bool)
    batch = {"joints": target, "fps": np.full(2, 50.0, np.float32)}
    sums, counts = losses.sums({"joints": found}, batch, known), losses.counts(known)
    ours = sum(config.loss[term] * sums[term] / counts[term] for term in sums)
    expected = torch_peer.pose_loss(spec)(theirs, torch.from_numpy(target))
    np.testing.assert_allclose(float(ours), float(expected.detach()), rtol=1e-5)
