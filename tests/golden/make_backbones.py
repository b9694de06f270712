"""Writes backbones.npz: logits of timm's models with the weights of ours.

    python -m tests.golden.make_backbones

Needs torch and timm, see `tests/oracles`. The weights are drawn by name (`small_backbones`) and
loaded strictly under timm's names, as `jaxcxr export --format torch-safetensors` writes them.
"""

import pathlib

import numpy as np

from jaxcxr.deploy.export import torch_weights
from tests.models.vision import small_backbones


def logits(torch, timm, name):
    """What timm computes for the images of `small_backbones.make`."""
    _, variables, images = small_backbones.make(name)
    network = eval(f"timm.models.{small_backbones.SMALL[name][2]}", {"timm": timm})
    state = torch_weights.state_dict(variables, name)
    if "reg_token" in state:  # timm's class token has its position within
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    network.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=True)
    network.eval()
    with torch.no_grad():
        return network(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()


def main():
    """Writes the file."""
    import timm
    import torch

    path = pathlib.Path(__file__).with_name("backbones.npz")
    np.savez(path, **{name: logits(torch, timm, name) for name in small_backbones.SMALL})


if __name__ == "__main__":
    main()
