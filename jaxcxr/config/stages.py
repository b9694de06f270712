"""Validates the settings of a training stage before any parameter exists."""

import functools
from typing import Any

import ml_collections

from jaxcxr.config import keys
from jaxcxr.config.keys import is_number
from jaxcxr.config.rule_form import check_rules
from jaxcxr.errors import UserError


def check_stage(stage: ml_collections.ConfigDict, where: str) -> None:
    """Refuses impossible settings of a stage.

    Arguments:
      stage: settings of a stage; only those of `keys.STAGE_KEYS` are checked.
      where: path of the stage for messages, such as "config.stages.head".

    Raises:
      UserError: a missing setting or an impossible value; the message says what is allowed.
    """
    for key in keys.STAGE_KEYS:
        node = stage
        for part in key.name.split("."):
            if part not in node:
                raise UserError(f"{where}.{key.name} is missing; see config.default_stage().")
            node = node[part]
        key.check(node, f"{where}.{key.name}")
    for name, words in (("decay_rules", (keys.MATRICES,)), ("multiplier_rules", ())):
        check_rules(
            stage.optimizer[name],
            functools.partial(_is_factor, words),
            f"a number of at least 0 (or {', '.join(['True', *map(repr, words)])} or False)",
            f"{where}.optimizer.{name}",
        )
    _check_warmup(stage, where)
    _check_decay(stage.decay, f"{where}.decay")


def _is_factor(words: tuple[str, ...], value: Any) -> bool:
    return value in words or isinstance(value, bool) or (is_number(value) and value >= 0)


def _check_warmup(stage: ml_collections.ConfigDict, where: str) -> None:
    name = stage.warmup.name
    if name in ("linear", "exponential", "noam") and stage.warmup.steps <= 0:
        raise UserError(
            f"{where}.warmup.steps is {stage.warmup.steps}; it must be above 0 with the {name} "
            "warm-up."
        )
    if name.startswith("untuned") and stage.optimizer.name == "sgd":
        raise UserError(
            f"{where}.warmup.name is {name!r}; choose linear or exponential: sgd has no b2 to "
            "take the period from."
        )
    if name != "noam":
        return
    if stage.warmup.dim <= 0:
        raise UserError(
            f"{where}.warmup.dim is {stage.warmup.dim}; with the noam warm-up it must be the width "
            "of the model."
        )
    if stage.decay.name != "constant":
        raise UserError(
            f"{where}.decay.name is {stage.decay.name!r}; use 'constant' with the noam warm-up, "
            "which decays by itself."
        )


def _check_decay(settings: ml_collections.ConfigDict, where: str) -> None:
    if settings.name == "exponential" and settings.end_factor <= 0:
        raise UserError(
            f"{where}.end_factor is {settings.end_factor}; it must be above 0 with the "
            "exponential decay."
        )
    edges = settings.boundaries
    if settings.name == "step" and not (
        edges and all(is_number(edge) and 0 < edge < 1 for edge in edges)
    ):
        raise UserError(
            f"{where}.boundaries is {edges!r}; give one or more fractions of the stage between 0 "
            "and 1, such as (0.6, 0.8)."
        )
