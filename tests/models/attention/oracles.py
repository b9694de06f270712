"""Plain NumPy attention in float64, what the members of the family are compared with."""

import jax
import numpy as np


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def heads_of(params, x, suffix=""):
    """Query, key and value `[batch, length, heads, width]` in float64."""
    found = []
    for name in ("query", "key", "value"):
        layer = jax.tree.map(np.float64, params[name + suffix])
        found.append(np.einsum("bnd,dhe->bnhe", x, layer["kernel"]) + layer["bias"])
    return found


def softmax(scores, seen):
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def attend(query, key, value, seen):
    """Masked softmax attention; `seen` bool, broadcast to `[batch, heads, queries, keys]`."""
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    return np.einsum("bhqk,bkhd->bqhd", softmax(scores, seen), value)


def output(params, mixed):
    layer = params["out"]
    return np.einsum("bqhd,hde->bqe", mixed, np.float64(layer["kernel"])) + layer["bias"]


def masked(params, x, seen):
    """Output of multi-head attention with a dense mask."""
    return output(params, attend(*heads_of(params, x), seen))


def largest_array(function, *args):
    """Elements of the largest intermediate that `function` makes, from its jaxpr."""
    found = [0]

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            found.extend(v.aval.size for v in equation.outvars if hasattr(v.aval, "size"))
            for value in equation.params.values():
                for item in value if isinstance(value, tuple | list) else (value,):
                    inner = getattr(item, "jaxpr", item)
                    if hasattr(inner, "eqns"):
                        walk(inner)

    walk(jax.make_jaxpr(function)(*args).jaxpr)
    return max(found)


def flops(function, *args):
    """XLA's count of floating-point operations, from the lowered program."""
    return jax.jit(function).lower(*args).cost_analysis()["flops"]
