"""Runs sequence-to-sequence models one output after the other.

A sequence-to-sequence model is a module from a source `[batch, n, in]` to outputs
`[batch, m, out]`, where the features of its targets are as many as those of its outputs: one-hot
vectors and logits for tokens, coordinates for poses. It has

  __call__(source, target, *, source_mask=None, target_mask=None, train=False) -> outputs
      teacher forcing: the target is shifted right inside, so that the output at t, the prediction
      of target t, depends on the source and the targets before t.
  encode(source, source_mask=None, train=False) -> memory
      what decoding needs of the source, masks included, computed once.
  start(memory, steps) -> (carry, first)
      the state before the first step, with room for `steps` of them, and the input of the first
      step `[batch, out]`, the same that `__call__` puts before the targets.
  step(carry, previous, memory) -> (carry, output)
      one step: `previous` `[batch, out]` is the input, `output` float32 `[batch, out]`.

`memory` and `carry` are pytrees of arrays; the shapes and dtypes in `carry` never change, so that
steps can be scanned, or taken one by one as a stream, at most as many as `start` made room for.
Masks are bool `[batch, length]`, False at padding.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def shift_right(target: jax.Array, first: jax.Array) -> jax.Array:
    """Inputs of teacher forcing: `first` `[batch, out]`, then `target` without its last step.

    Arguments:
      target: `[batch, steps, out]`.
      first: `[batch, out]` or `[out]`.

    Returns:
      `[batch, steps, out]` in the dtype of `target`.
    """
    batch, _, width = target.shape
    head = jnp.broadcast_to(first.astype(target.dtype), (batch, width))[:, None]
    return jnp.concatenate([head, target[:, :-1]], axis=1)


def identity(output: jax.Array) -> jax.Array:
    """Feedback of continuous outputs: the next input is the output."""
    return output


def one_hot_of_largest(logits: jax.Array) -> jax.Array:
    """Feedback of tokens in greedy decoding: the one-hot vector of the largest logit."""
    return jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=logits.dtype)


def decode(
    model: nn.Module,
    variables: Any,
    source: jax.Array,
    steps: int,
    feedback: Callable[[jax.Array], jax.Array] = identity,
    source_mask: jax.Array | None = None,
    *,
    targets: jax.Array | None = None,
    forced: jax.Array | None = None,
) -> jax.Array:
    """Runs a sequence-to-sequence model autoregressively, by one `lax.scan`.

    Differentiable by `variables`, so that it also trains with scheduled sampling (Bengio et al.
    2015), without dropout: give `targets` and draw `forced` with the ratio of teacher forcing.

    Arguments:
      model: a module with the interface of this file.
      variables: of the model.
      source: `[batch, n, in]`.
      steps: number of outputs.
      feedback: maps an output `[batch, out]` to the input of the next step.
      source_mask: bool `[batch, n]`, False at padding.
      targets: `[batch, steps, out]`, inputs of the steps after them instead of the feedback.
      forced: bool `[batch, steps]`, where `targets` are used; everywhere by default.

    Returns:
      The outputs `[batch, steps, out]`.
    """
    apply: Callable[..., Any] = functools.partial(model.apply, variables)
    memory = apply(source, source_mask, method="encode")
    carry, first = apply(memory, steps, method="start")

    def advance(state: tuple, teacher: tuple) -> tuple:
        carry, previous = state
        carry, output = apply(carry, previous, memory, method="step")
        following = feedback(output).astype(previous.dtype)
        if targets is not None:
            target, given = teacher
            following = jnp.where(given[:, None], target.astype(previous.dtype), following)
        return (carry, following), output

    teacher = None
    if targets is not None:
        given = jnp.ones(targets.shape[:2], bool) if forced is None else forced
        teacher = (targets.swapaxes(0, 1), given.swapaxes(0, 1))
    outputs: jax.Array
    _, outputs = jax.lax.scan(advance, (carry, first), teacher, length=steps)
    return outputs.swapaxes(0, 1)
