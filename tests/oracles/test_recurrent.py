"""Recurrent layers against those of torch with the same weights."""

import jax
import numpy as np
import pytest

from jaxcxr.models.sequence import recurrent

pytestmark = pytest.mark.oracles

X = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)
LENGTHS = np.array([7, 4, 1])

# torch stacks its gates: input-to-hidden and hidden-to-hidden of each, and a bias of either side.
GATES = {
    "rnn": (("i", "h"),),
    "lstm": tuple((f"i{k}", f"h{k}") for k in "ifgo"),
    "gru": tuple((f"i{k}", f"h{k}") for k in "rzn"),
}
CLASSES = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}


def stacked(params, names, width):
    kernel = np.concatenate([params[name]["kernel"].T for name in names])
    zeros = np.zeros(width, np.float32)
    return kernel, np.concatenate([params[name].get("bias", zeros) for name in names])


def port(torch, module, params, layers, kind, width):
    state = {}
    for layer in range(layers):
        for way, suffix in (("forward", ""), ("backward", "_reverse")):
            cell = params[f"{way}_{layer}"]
            for side, names in zip(("ih", "hh"), zip(*GATES[kind], strict=True), strict=True):
                kernel, bias = stacked(cell, names, width)
                state[f"weight_{side}_l{layer}{suffix}"] = torch.tensor(kernel)
                state[f"bias_{side}_l{layer}{suffix}"] = torch.tensor(bias)
    module.load_state_dict(state)


@pytest.mark.parametrize("kind", GATES)
def test_padded_bidirectional_layers(torch, agree, kind):
    width, layers = 6, 2
    ours = recurrent.Recurrent(kind, width, layers, bidirectional=True)
    mask = np.arange(7) < LENGTHS[:, None]
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), X)
    variables = jax.tree.map(
        lambda s: rng.normal(scale=0.6, size=s.shape).astype(np.float32), shapes
    )
    outputs, carries = ours.apply(variables, X, mask, method="run")

    make = getattr(torch.nn, CLASSES[kind])
    theirs = make(5, width, layers, batch_first=True, bidirectional=True)
    port(torch, theirs, variables["params"], layers, kind, width)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(X), torch.tensor(LENGTHS), batch_first=True
    )
    with torch.no_grad():
        packed, final = theirs(packed)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
    what = "RNN, LSTM and GRU, bidirectional, of padded sequences, against torch"
    agree(what, outputs, expected.numpy(), 2e-6)

    final = final[0] if kind == "lstm" else final
    states = np.stack([recurrent.hidden(carry) for ways in carries for carry in ways])
    agree(what, states, final.numpy(), 2e-6)
