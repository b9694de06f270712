"""Makes optim.npz: updates of torch optimisers and pytorch_warmup factors, in float64.

Run `python tests/golden/make_optim.py` with the `oracles` extra installed. Made with torch 2.13.0
and pytorch_warmup 0.2.0.
"""

import pathlib

import numpy as np
import pytorch_warmup
import torch

STEPS, SIZE, RATE, DECAY = 50, 6, 1e-2, 0.1
OUT = pathlib.Path(__file__).parent / "optim.npz"

OPTIMIZERS = {
    "radam": lambda p: torch.optim.RAdam(
        p, lr=RATE, weight_decay=DECAY, decoupled_weight_decay=True
    ),
    "radam_b2_099": lambda p: torch.optim.RAdam(p, lr=RATE, betas=(0.9, 0.99)),
    "adamw": lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=DECAY),
    "adam": lambda p: torch.optim.Adam(p, lr=RATE, weight_decay=DECAY),
    "sgd": lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.9, weight_decay=DECAY),
    "nesterov": lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.9, nesterov=True),
}
WARMUPS = {
    "linear": lambda o: pytorch_warmup.LinearWarmup(o, 20),
    "exponential": lambda o: pytorch_warmup.ExponentialWarmup(o, 20),
    "untuned_linear": pytorch_warmup.UntunedLinearWarmup,
    "untuned_exponential": pytorch_warmup.UntunedExponentialWarmup,
}


def trajectory(make, start, gradients):
    """Parameters [steps + 1, size] before and after each update."""
    param = torch.nn.Parameter(torch.tensor(start))
    optimizer = make([param])
    history = [start.copy()]
    for gradient in gradients:
        param.grad = torch.tensor(gradient)
        optimizer.step()
        history.append(param.detach().numpy().copy())
    return np.stack(history)


def factors(make, steps):
    """Warm-up factors [steps] of the updates 1, 2, ..., for Adam with b2 = 0.999."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    warmup = make(optimizer)
    history = []
    for _ in range(steps):
        history.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warmup.dampening():
            pass
    return np.array(history)


def main():
    rng = np.random.default_rng(0)
    start = rng.normal(size=SIZE)
    gradients = rng.normal(size=(STEPS, SIZE)) * 10.0 ** np.arange(-4, 2)
    arrays = {name: trajectory(make, start, gradients) for name, make in OPTIMIZERS.items()}
    arrays |= {f"warmup_{name}": factors(make, STEPS) for name, make in WARMUPS.items()}
    np.savez_compressed(OUT, start=start, gradients=gradients, **arrays)


if __name__ == "__main__":
    main()
