"""Decides where a run starts: which weights, for which input, and whether they may stay random."""

import dataclasses
from typing import Any

import jax
from etils import epath
from flax import traverse_util

from jaxcxr import config as config_lib
from jaxcxr.errors import UserError
from jaxcxr.models.weights import inputs, networks
from jaxcxr.train import checkpoint


def resolve(config, workdir: epath.Path) -> dict[str, str]:
    """Sets `config.model.input` to what the weights expect, unless the config says it.

    A run that is resumed takes what it has recorded, and needs the file no more.

    Arguments:
      config: the config; changed.
      workdir: folder of the run.

    Returns:
      Rows about weights and input for the screen.

    Raises:
      UserError: the file cannot be read, or nothing says what its weights expect.
    """
    settings = config.model.get("input")  # poses have none
    if settings is None:
        return {}
    if not config.model.pretrained:
        return {"input": inputs.of_config(settings).describe()} if inputs.given(settings) else {}
    rows = {}
    if (workdir / "config.json").exists() and not inputs.given(settings):
        saved = config_lib.from_saved(checkpoint.load_config(workdir))
        if saved.model.pretrained == config.model.pretrained:
            settings.update(saved.model.input)
    elif not (workdir / "config.json").exists():
        network = networks.open_file(
            config.model.pretrained, config.model.name, config.model.pretrained_part
        )
        network.check_options(config.model.options)
        if not inputs.given(settings):
            found = inputs.find(network)
            if found is None:
                raise inputs.unknown(network)
            settings.update(dataclasses.asdict(found))
        rows["weights"] = network.describe()
    found = inputs.of_config(settings)
    rows["input"] = found.describe()
    if found.size and found.size != config.data.image_size:
        rows["input"] += (
            f"; the weights were trained at {found.size} pixels, this run has "
            f"{config.data.image_size}"
        )
    return rows


def check_frozen(config, stages: tuple, params: Any) -> dict[str, str]:
    """Says which stage trains on top of random weights that it leaves as they are.

    Arguments:
      config: the config.
      stages: of the run, in order.
      params: of the model, or their shapes.

    Returns:
      A row for the screen; none where no stage does.

    Raises:
      UserError: one does, and `config.model.random_backbone` does not allow it.
    """
    if config.model.pretrained:
        return {}
    sizes = {
        path: leaf.size for path, leaf in traverse_util.flatten_dict(params, sep="/").items()
        if path.startswith("backbone/")
    }
    random = set(sizes)
    for stage in stages:
        random = {path for path in random if not stage.trains(path)}
        if random:
            share = sum(sizes[path] for path in random) / sum(jax.tree.leaves(sizes))
            text = f"stage {stage.name!r} leaves {share:.0%} of the backbone at random weights"
            if not config.model.random_backbone:
                raise UserError(
                    f"{text}: what it trains learns from noise. Give the weights by "
                    "--config.model.pretrained=FILE, or --config.model.random_backbone=True to go "
                    "on."
                )
            return {"random weights": text}
    return {}
