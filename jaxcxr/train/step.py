"""The training step and the evaluation step: pure functions, the same for jit and pmap.

Losses are sums over known labels divided by how many there are in the *global* batch. The divisor
is known from the labels alone, so that micro-batches and devices only add up: accumulating k
micro-batches, or splitting the batch over k devices, gives the loss of the whole batch.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict

from jaxcxr.train import parallel
from jaxcxr.train import state as state_lib


def freeze_batch_norm(stage: state_lib.Stage):
    """Opens a context in which BatchNorm layers that the stage freezes use running statistics.

    A frozen layer that normalised by the batch would still change the network's function and its
    statistics; Linen calls this interceptor for every module call inside the context.
    """

    def intercept(call, args, kwargs, context):
        module = context.module
        if isinstance(module, nn.BatchNorm) and context.method_name == "__call__":
            path = "/".join(module.path)
            if not any(stage.trains(f"{path}/{leaf}") for leaf in ("scale", "bias")):
                kwargs = {**kwargs, "use_running_average": True}
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


def sown_losses(collection) -> dict[str, jax.Array]:
    """Returns losses that layers sow into the collection `losses`, each averaged over its layers.

    Arguments:
      collection: nested dicts whose leaves are tuples of weighted scalars, or of one for each
        scanned layer, such as `{"block": {"attention": {"span": (0.1,)}}}`.
    """
    found: dict[str, list[jax.Array]] = {}
    for path, values in flatten_dict(collection).items():
        # What scanned layers sow has an axis of the layers.
        found.setdefault(path[-1], []).append(jnp.ravel(sum(values)))
    return {name: jnp.concatenate(values).mean() for name, values in found.items()}


def make_loss(
    model, task, stage, axis: str | None, parts: int = 1, gather: Callable | None = None
) -> Callable:
    """Builds the loss of one micro-batch; to train another loss, change the task's `loss_sums`.

    Arguments:
      axis: name of the pmap axis; None under jit, where every array is global.
      parts: number of micro-batches, over which the losses are added up.
      gather: makes split parameters whole for the computation, or None.

    Returns:
      `loss_of(trained, frozen, batch_stats, batch, divisors, key) -> (loss, (terms, batch_stats))`,
      each term being its sum over known targets divided by how many the global batch holds. Terms
      that the model's layers sow have their weight in them and are divided by the number of
      micro-batches and devices.
    """

    def loss_of(trained, frozen, batch_stats, batch, divisors, key):
        params = state_lib.merge(trained, frozen)
        params = gather(params) if gather else params
        variables = {"params": params, "batch_stats": batch_stats}
        inputs, options = task.inputs(batch, train=True)
        with freeze_batch_norm(stage):
            outputs, updated = model.apply(
                variables, inputs, train=True, rngs={"dropout": key},
                mutable=["batch_stats", "losses"], **options,
            )
        outputs = parallel.constrain_batch(outputs, axis)
        terms = {k: v / divisors[k] for k, v in task.loss_sums(outputs, batch).items()}
        loss = sum(task.loss_weights[name] * term for name, term in terms.items())
        share = 1.0 / (parts * (jax.lax.axis_size(axis) if axis else 1))
        sown = {k: v * share for k, v in sown_losses(updated.get("losses", {})).items()}
        twice = terms.keys() & sown.keys()
        if twice:
            raise ValueError(f"the task and a layer both have a loss called {', '.join(twice)}")
        loss = sum(sown.values(), loss)
        terms |= sown
        return loss, (terms, updated.get("batch_stats", batch_stats))

    return parallel.checkpoint_gathered(loss_of) if gather else loss_of


def make_train_step(
    config, model, task, stage, tx, schedule, *, axis: str | None = None,
    gather: Callable | None = None,
) -> Callable:
    """Builds `train_step(state, batch) -> (state, metrics)`.

    Arguments:
      config: `seed`, `accumulate` and `ema_decay` are read.
      tx: optimiser over the parameters that the stage trains.
      schedule: learning rate by step within the stage, for the log.
      axis, gather: as for `make_loss`.

    Returns:
      The step. `metrics` holds scalars: the loss and its terms before the update, the global
      gradient norm before clipping, the norm of all parameters after the update, the learning
      rate.
    """
    total = (lambda x: jax.lax.psum(x, axis)) if axis else (lambda x: x)

    loss_of = make_loss(model, task, stage, axis, config.accumulate, gather)
    gradient = jax.value_and_grad(loss_of, has_aux=True)

    def train_step(state, batch):
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        augment_key, dropout_key = jax.random.split(key)
        if axis:
            dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis))
        batch = task.augment(augment_key, batch)
        divisors = {
            name: jnp.maximum(total(count), 1.0) for name, count in task.divisors(batch).items()
        }
        trained, frozen = state_lib.split(state.params, stage)

        def micro(stats, index, part):
            key = jax.random.fold_in(dropout_key, index)
            (loss, (terms, stats)), grads = gradient(trained, frozen, stats, part, divisors, key)
            return stats, (loss, terms, grads)

        if config.accumulate == 1:
            batch_stats, (loss, terms, grads) = micro(state.batch_stats, 0, batch)
        else:
            batch_stats, (loss, terms, grads) = accumulate(
                micro, state.batch_stats, batch, config.accumulate, axis
            )
        loss, terms, grads = total((loss, terms, grads))

        updates, opt_state = tx.update(grads, state.opt_state, trained)
        params = state_lib.merge(optax.apply_updates(trained, updates), frozen)
        ema = state.ema
        if ema is not None:
            ema = optax.incremental_update(params, ema, 1.0 - config.ema_decay)
        metrics = {
            "loss": loss,
            **{f"loss_{name}": term for name, term in terms.items() if len(terms) > 1},
            "grad_norm": optax.tree.norm(grads),
            "param_norm": optax.tree.norm(params),
            "learning_rate": schedule(state.step - stage.start),
        }
        new_state = state.replace(
            step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state,
            ema=ema,
        )
        return new_state, metrics

    return train_step


def accumulate(micro: Callable, batch_stats, batch, count: int, axis: str | None):
    """Runs `micro` over `count` slices of the batch and adds up losses and gradients.

    BatchNorm statistics pass from slice to slice, each slice being normalised by itself: with
    BatchNorm, accumulation is not the same as one batch. Everything else adds up exactly.
    """
    parts = jax.tree.map(lambda x: parallel.split_batch(x, count, axis), batch)

    def body(carry, scanned):
        stats, sums = carry
        index, part = scanned
        stats, new = micro(stats, index, part)
        return (stats, jax.tree.map(jnp.add, sums, new)), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(lambda: micro(batch_stats, 0, first)[1])
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    (batch_stats, sums), _ = jax.lax.scan(
        body, (batch_stats, zeros), (jnp.arange(count, dtype=jnp.int32), parts)
    )
    return batch_stats, sums


def make_eval_step(model, task, gather: Callable | None = None) -> Callable:
    """Builds `eval_step(params, batch_stats, batch) -> predictions`, arrays with a batch axis."""

    def eval_step(params, batch_stats, batch):
        params = gather(params) if gather else params
        inputs, options = task.inputs(batch)
        variables = {"params": params, "batch_stats": batch_stats}
        outputs = model.apply(variables, inputs, train=False, **options)
        return task.predict(outputs, batch)

    return eval_step
