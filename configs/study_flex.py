"""Do properties of single heads help a small transformer? Rows x 3 seeds on three data sets.

    jaxcxr study --config=configs/study_flex.py --workdir=runs/study
    python -m jaxcxr.main --config=configs/study_flex.py:cmu_mocap --workdir=runs/plain

The first command does the whole study; the second trains plain heads on one of the data sets
`cmu_mocap` (pose lifting, clips of 27 frames), `chest_phantom` and `chestxray14` (64 px, patches of
8), which must be prepared: the public subset of cmu_mocap, and chestxray14 by

    jaxcxr prepare chestxray14 --raw DIR --size 64 --equalize hist --allow-missing

Hypotheses, written before any run of the study. A row is "better" or "worse" when the interval of
its paired difference from the reference, the best of the three plain rows on validation, leaves out
0, and its Holm-adjusted p is below 0.05; with three seeds only differences large against the spread
between seeds can be. Everything else is "no difference seen", which is not "no difference".

  H1  Of the rows that restrict or bias attention by distance (alibi, table, fixed, adaptive,
      dynamic), at least one is better than plain on cmu_mocap, where positions are sinusoidal and
      neighbouring frames matter most.
  H2  Learned spans do not do better than spans set by hand (fixed), nor than alibi, which has no
      parameters at all. Expected: no difference seen.
  H3  Where a span lies matters: spans learned and trained anew in their places (learned) do better
      than the same spans permuted over heads and layers (permuted) and than their mean in every
      head (uniform). If not, learning spans finds an amount of locality, not an allocation.
  H4  The distribution alone brings nothing: entmax15 and entmax with learned orders are as plain.
  H5  Gates close at least 30 % of the heads at no cost seen; closing as many at random before
      training (random-pruned) costs no more, since small models have heads to spare.
  H6  On chest_phantom and chestxray14 nothing is better than plain: 64 tokens, of which one patch
      often holds the finding, and 647 training images leave spread between seeds larger than what
      heads can do.

What the rows are, beside their names. All have four heads but plain-2 and plain-8. permuted,
uniform and learned take the spans that the row adaptive learned with the same seed, as windows up
to where its soft edge falls to a half, and train anew. Within a layer trained anew the order of
heads means nothing, so that permuted draws until some layer has other spans than it learned.
random-pruned narrows as many heads, drawn at random, to a width of 1 as the row gates closed with
the same seed; it has fewer parameters, as the table says. Rows with more parameters than plain
(table, dynamic) have MLPs narrower by as much, to 0.1 %. The weights of the losses of spans and
gates, the ramps and the windows were set once, and nothing is tuned on any row.
"""

import numpy as np

from jaxcxr import config as base
from jaxcxr.errors import UserError
from jaxcxr.models.attention import head_parts
from jaxcxr.study import Context, Study

DATA = ("cmu_mocap", "chest_phantom", "chestxray14")
ATTENTION = "model.options.attention"
HEADS, DIM, HIDDEN = 4, 64, 128

# By data set. Distances in frames or patches; losses are of the size of the task's own.
LIMIT = {"cmu_mocap": 26, "chest_phantom": 7, "chestxray14": 7}
RAMP = {"cmu_mocap": 4, "chest_phantom": 2, "chestxray14": 2}
WINDOWS = {"cmu_mocap": (2, 4, 8), "chest_phantom": (1, 2, 4), "chestxray14": (1, 2, 4)}
SPAN_LOSS = {"cmu_mocap": 0.01, "chest_phantom": 0.03, "chestxray14": 0.03}
GATE_LOSS = {"cmu_mocap": 0.02, "chest_phantom": 0.05, "chestxray14": 0.05}
# Hidden units that pay for what a row has besides, in each layer, in which each costs 129
# parameters: 257 relative positions of 4 heads on the line and 228 on the grid, or 4 x 65.
TABLE_UNITS = {"cmu_mocap": 8, "chest_phantom": 7, "chestxray14": 7}
DYNAMIC_UNITS = 2


def get_config(arg: str = "cmu_mocap"):
    if arg not in DATA:
        raise UserError(f"configs/study_flex.py takes {', '.join(DATA)}, not {arg!r}.")
    return pose() if arg == "cmu_mocap" else xray(arg)


def pose():
    config = base.default("pose")
    base.set_source(config, "cmu_mocap")
    base.set_model(
        config, "pose_temporal", dim=DIM, depth=3, heads=HEADS, mlp_ratio=HIDDEN / DIM,
        drop_path=0.0,
    )
    config.data.frames = 27
    config.batch_size = 32
    train(config, "400 steps", learning_rate=3e-3, optimizer__name="radam",
          optimizer__weight_decay=0.1)
    return config


def xray(source):
    config = base.default("cxr")
    if source == "chest_phantom":
        base.set_source(config, source, size=64, images=3000, prevalence="enriched")
        duration = "1200 steps"
    else:
        base.set_source(config, source, size=64, equalize="hist", allow_missing=True)
        duration = "800 steps"
    base.set_model(
        config, "vit_tiny", dim=DIM, depth=2, heads=HEADS, patch=8, mlp_ratio=HIDDEN / DIM,
        pool="mean",
    )
    config.batch_size = 16
    config.loss.class_weights = "none"
    still = ("rotation", "scale", "translation", "shear", "crop_aspect", "brightness", "contrast",
             "gamma")
    config.augment.update({**dict.fromkeys(still, 0.0), "crop_area": 1.0})
    train(config, duration, learning_rate=2e-3, optimizer__name="adamw",
          optimizer__weight_decay=0.05, optimizer__clip_norm=1.0, warmup__name="linear",
          warmup__steps=50)
    return config


def train(config, duration, **stage):
    """One stage; one evaluation and one checkpoint, at its end."""
    base.add_stage(config, "all", duration, decay__name="cosine", **stage)
    config.evaluate_every = config.checkpoint.every = duration
    config.log_every = 25


def heads(text):
    """A row of which all layers have these heads."""
    return {ATTENTION: text}


def trimmed(text, units):
    """The same, with MLPs narrower by some units."""
    return {ATTENTION: text, "model.options.mlp_ratio": (HIDDEN - units) / DIM}


def table(context: Context):
    return trimmed("4*table", TABLE_UNITS[context.data])


def fixed(context: Context):
    local = "+".join(f"1*fixed({window})" for window in WINDOWS[context.data])
    return heads(f"{local}+1*global")


def adaptive(context: Context):
    ramp, loss = RAMP[context.data], SPAN_LOSS[context.data]
    return heads(f"4*adaptive(ramp={ramp},init=-1,loss={loss})")


def dynamic(context: Context):
    ramp, loss = RAMP[context.data], SPAN_LOSS[context.data]
    return trimmed(f"4*dynamic(ramp={ramp},loss={loss})", DYNAMIC_UNITS)


def learned_windows(context: Context):
    """Windows of the finished row adaptive, `[layers, heads]`."""
    shares = np.array(list(context.finished("adaptive")["learned"].values()))
    ramp, limit = RAMP[context.data], LIMIT[context.data]
    return np.minimum(np.rint(shares * limit + ramp / 2), limit).astype(int)


def with_windows(windows):
    """A row whose heads have these windows, `[layers, heads]`."""
    return heads("|".join(
        "+".join(f"{n}*fixed({w})" for w, n in zip(*np.unique(layer, return_counts=True),
                                                   strict=True))
        for layer in windows
    ))


def learned(context: Context):
    return with_windows(learned_windows(context))


def permuted(context: Context):
    windows = learned_windows(context)
    rng = np.random.default_rng(context.seed)
    for _ in range(100):
        new = rng.permutation(windows.ravel()).reshape(windows.shape)
        if not np.array_equal(np.sort(new, 1), np.sort(windows, 1)):
            break
    return with_windows(new)


def uniform(context: Context):
    windows = learned_windows(context)
    return with_windows(np.full_like(windows, np.rint(windows.mean())))


def gated(context: Context):
    return heads(f"4*static({GATE_LOSS[context.data]})")


def random_pruned(context: Context):
    odds = np.array(list(context.finished("gates")["learned"].values()), np.float32)
    closed = int((np.asarray(head_parts.hard_concrete(odds)) == 0).sum())
    rng = np.random.default_rng(context.seed)
    pruned = np.zeros(odds.size, bool)
    pruned[rng.permutation(odds.size)[:closed]] = True
    width = DIM // HEADS
    layers = []
    for layer in pruned.reshape(odds.shape):
        parts = ((HEADS - layer.sum(), width), (layer.sum(), 1))
        layers.append("+".join(f"{count}*dim({size})" for count, size in parts if count))
    return heads("|".join(layers))


def get_study():
    return Study(
        data=DATA,
        rows={
            "plain-2": {"model.options.heads": 2},
            "plain-4": {},
            "plain-8": {"model.options.heads": 8},
            "alibi": heads("4*alibi"),
            "table": table,
            "fixed": fixed,
            "adaptive": adaptive,
            "dynamic": dynamic,
            "learned": learned,
            "permuted": permuted,
            "uniform": uniform,
            "entmax15": heads("4*entmax15"),
            "entmax": heads("4*entmax"),
            "gates": gated,
            "random-pruned": random_pruned,
        },
        reference=("plain-2", "plain-4", "plain-8"),
        seeds=(0, 1, 2),
    )
