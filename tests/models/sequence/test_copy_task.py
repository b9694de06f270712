"""Every sequence-to-sequence model learns to write sequences of tokens backwards, without a fault.

Sequences of 1 to `longest` tokens are padded; the target is the reversed sequence and an end token.
Trained by teacher forcing, a model must then write unseen sequences autoregressively, each output
being the next input, and be right in every token of every sequence.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcxr.models.sequence import seq2seq
from jaxcxr.models.sequence.recurrent_attention import RecurrentEncoderDecoder
from jaxcxr.models.sequence.seq2seq import EncoderDecoder

TOKENS = 5
END = TOKENS  # a class of the targets only
BATCH = 64


@functools.cache
def task(longest):
    """Arrays of distinct sequences in random order: one-hot sources and targets, masks, lengths."""
    rng = np.random.default_rng(0)
    found = {}
    while len(found) < min(8000, 3 * TOKENS**longest // 4):
        found[tuple(rng.integers(TOKENS, size=rng.integers(1, longest + 1)))] = None
    sequences = list(found)
    rng.shuffle(sequences)
    source = np.zeros((len(sequences), longest, TOKENS), np.float32)
    target = np.zeros((len(sequences), longest + 1, TOKENS + 1), np.float32)
    lengths = np.array([len(tokens) for tokens in sequences])
    for row, tokens in enumerate(sequences):
        source[row, np.arange(len(tokens)), tokens] = 1
        target[row, np.arange(len(tokens) + 1), [*tokens[::-1], END]] = 1
    return {
        "source": source,
        "target": target,
        "source_mask": np.arange(longest) < lengths[:, None],
        "target_mask": np.arange(longest + 1) <= lengths[:, None],
    }


def exact(model, longest, steps, rate):
    """Share of unseen sequences that the trained model writes without a fault."""
    data = task(longest)
    unseen = len(data["source"]) // 16
    held_out = {name: array[:unseen] for name, array in data.items()}
    seen = {name: jnp.asarray(array[unseen:]) for name, array in data.items()}
    rows = np.random.default_rng(1).integers(len(seen["source"]), size=(steps, BATCH))
    schedule = optax.cosine_onecycle_schedule(steps, rate, pct_start=0.1)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def loss(variables, batch):
        masks = {name: batch[name] for name in ("source_mask", "target_mask")}
        logits = model.apply(variables, batch["source"], batch["target"], **masks)
        each = optax.softmax_cross_entropy(logits, batch["target"])
        return (each * batch["target_mask"].astype(jnp.float32)).sum() / BATCH

    def step(state, chosen):
        variables, memory = state
        gradient = jax.grad(loss)(variables, jax.tree.map(lambda x: x[chosen], seen))
        with jax.numpy_dtype_promotion("standard"):  # optax relies on it
            updates, memory = optimizer.update(gradient, memory)
        return (optax.apply_updates(variables, updates), memory), None

    @jax.jit
    def run(rows):
        batch = jax.tree.map(lambda x: x[:1], seen)
        variables = model.init(jax.random.key(0), batch["source"], batch["target"])
        (variables, _), _ = jax.lax.scan(step, (variables, optimizer.init(variables)), rows)
        logits = seq2seq.decode(
            model,
            variables,
            jnp.asarray(held_out["source"]),
            longest + 1,
            seq2seq.one_hot_of_largest,
            jnp.asarray(held_out["source_mask"]),
        )
        return logits.argmax(-1)

    right = (run(rows) == held_out["target"].argmax(-1)) | ~held_out["target_mask"]
    return right.all(-1).mean()


CELLS = ("rnn", "lstm", "gru", "gru_thesis")
# What is not slow is one model of each kind.
FAST = {("rnn", "luong"), ("gru_thesis", "bahdanau"), ("pre", 800)}


def cases(*names):
    """Cases of a test, slow where they are not in `FAST`."""
    marks = {name: () if name in FAST else pytest.mark.slow for name in names}
    return [
        pytest.param(*(name if isinstance(name, tuple) else (name,)), marks=mark)
        for name, mark in marks.items()
    ]


@pytest.mark.parametrize(
    ("cell", "attention"), cases(*itertools.product(CELLS, ("bahdanau", "luong")))
)
def test_recurrent_with_attention(cell, attention):
    model = RecurrentEncoderDecoder(TOKENS + 1, cell, 32, attention=attention)
    assert exact(model, longest=6, steps=500, rate=1e-2) == 1


@pytest.mark.parametrize("cell", cases(*CELLS))
def test_recurrent_without_attention(cell):
    """One state must hold the whole sequence, so that it takes more width and more steps."""
    model = RecurrentEncoderDecoder(TOKENS + 1, cell, 64, attention="none")
    assert exact(model, longest=5, steps=800, rate=1e-2) == 1


@pytest.mark.parametrize(("norm", "steps"), cases(("pre", 800), ("post", 1500)))
def test_transformer(norm, steps):
    model = EncoderDecoder(TOKENS + 1, 32, 1, 1, heads=2, norm=norm)
    assert exact(model, longest=6, steps=steps, rate=5e-3) == 1
