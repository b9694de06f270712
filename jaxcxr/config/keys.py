"""Lists every key of a config in one table: default, meaning and bounds.

A new key is one entry here. `jaxcxr.config.default` builds the tree from the table, `validate`
checks values against it, and the documentation lists it.
"""

import dataclasses
import math
import numbers
import re
from collections.abc import Callable
from typing import Any

from jaxcxr.errors import UserError, did_you_mean

Rules = tuple[tuple[str, Any], ...]  # ((regex, value), ...), see `compile_rules`


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a config.

    Attributes:
      name: dotted.
      default: its value unless an experiment says otherwise; its type is the key's type.
      meaning: one line.
      least, greatest: allowed bounds, inclusive.
      above, below: allowed bounds, exclusive.
      choices: allowed values, if there are few.
      of_part: a choice may be followed by /NAME, a class or an action.
      task: the task that has the key; "" for both.
    """

    name: str
    default: Any
    meaning: str
    _: dataclasses.KW_ONLY
    least: float | None = None
    greatest: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple = ()
    of_part: bool = False
    task: str = ""

    def allowed(self) -> str:
        """Describes the allowed values in words; "" if every value of the type is allowed."""
        if self.choices:
            return ", ".join(map(repr, self.choices))
        words = [
            f"{word} {bound}" for word, bound in (
                ("at least", self.least), ("above", self.above),
                ("at most", self.greatest), ("below", self.below),
            ) if bound is not None
        ]
        return " and ".join(words)

    def check(self, value: Any, where: str) -> None:
        """Refuses a value of another type or out of bounds.

        Arguments:
          value: to check.
          where: full name of the key for the message, such as "config.batch_size".

        Raises:
          UserError: the message names the key, the value and what is allowed.
        """
        if not _same_kind(value, self.default):
            raise UserError(
                f"{where} is {value!r}; it must be of type {type(self.default).__name__}."
            )
        if self.choices:
            if (value.partition("/")[0] if self.of_part else value) not in self.choices:
                hint = did_you_mean(str(value), self.choices, 0.5)
                raise UserError(f"{where} is {value!r}; allowed: {self.allowed()}.{hint}")
        elif is_number(self.default) and not self._within(value):
            raise UserError(f"{where} is {value!r}; allowed: {self.allowed() or 'finite numbers'}.")

    def _within(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.greatest is None or value <= self.greatest)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def is_number(value: Any) -> bool:
    """Tells whether a value is a real number, infinity included, and no boolean."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _same_kind(value: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        return is_number(value)
    if isinstance(expected, int) and not isinstance(expected, bool):
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, type(expected))


_PROCESS = (
    Key("task", "", "chest X-ray or pose", choices=("cxr", "pose")),
    Key("seed", 0, "of initial weights, order of examples, augmentation and dropout",
        least=0, greatest=2**31 - 1),
    Key("batch_size", 32, "examples per optimiser step, over all devices and hosts", least=1),
    Key("accumulate", 1, "micro-batches per optimiser step", least=1),
    Key("dtype", "float32", "of activations; parameters are float32",
        choices=("float32", "bfloat16")),
    Key("parallel", "jit", "how the step is compiled; pmap is for one host",
        choices=("jit", "pmap")),
    Key("mesh.data", -1, "devices over which examples are split; -1: all remaining ones"),
    Key("mesh.fsdp", 1, "devices over which parameters and examples are split", least=1),
    Key("mesh.tensor", 1, "devices over which heads and MLPs are split", least=1),
    Key("sharding_rules", (), "((regex, 'fsdp' | 'replicate' | axes), ...) before the defaults"),
)

_DATA = (
    Key("data.source", "chest_phantom", "data set", task="cxr"),
    Key("data.source", "motion_phantom", "data set", task="pose"),
    Key("data.options", {}, "of the data set; they name the prepared variant"),
    Key("data.dir", "", "folder of prepared data; '': $TFDS_DATA_DIR or ~/tensorflow_datasets"),
    Key("data.image_size", 64, "pixels a side fed to the model (chest X-ray)",
        least=8, greatest=4096),
    Key("data.frames", 27, "frames per training window (pose)", least=1, greatest=4096),
    Key("data.stride", 9, "frames between training windows (pose)", least=1),
    Key("data.target", "sequence", "whether a window lifts all its frames or its middle one (pose)",
        choices=("sequence", "center")),
    Key("data.sampling", "plain", "how training images are drawn (chest X-ray)",
        choices=("plain", "class_balanced", "source_balanced")),
    Key("data.labels", "", "csv with labels of the training split; '': the recorded ones"),
    Key("data.folds", 0, "parts of the training split, by patient; 0: it is one whole",
        least=0, greatest=1000),
    Key("data.fold_seed", 0, "of the assignment of patients to folds", least=0,
        greatest=2**31 - 1),
    Key("data.left_out", (), "numbers of the folds that are not trained on"),
    Key("data.cache_features", False, "train the head on features that the frozen backbone gives "
        "once", task="cxr"),
    Key("data.threads", 2, "that read and decode", least=0, greatest=256),
    Key("data.prefetch", 4, "batches decoded ahead", least=1),
    Key("data.workers", 0, "processes that generate a phantom; 0: one per core", least=0,
        greatest=1024),
)

_AUGMENT = (
    Key("augment.rotation", 10.0, "largest angle either way, degrees", least=0, greatest=180,
        task="cxr"),
    Key("augment.scale", 0.1, "s draws a zoom log-uniformly from 1/(1+s) to 1+s", least=0,
        task="cxr"),
    Key("augment.translation", 0.05, "largest shift either way, fraction of the side", least=0,
        task="cxr"),
    Key("augment.shear", 3.0, "largest shear either way, degrees", least=0, greatest=60,
        task="cxr"),
    Key("augment.crop_area", 0.85, "least area of the random-resized crop; 1: no crop", least=0.01,
        greatest=1, task="cxr"),
    Key("augment.crop_aspect", 0.1, "a draws the crop's aspect log-uniformly from 1/(1+a) to 1+a",
        least=0, task="cxr"),
    Key("augment.brightness", 0.1, "largest amount added either way, to images in [0, 1]", least=0,
        task="cxr"),
    Key("augment.contrast", 0.15, "c draws the factor about the mean uniformly from 1-c to 1+c",
        least=0, greatest=1, task="cxr"),
    Key("augment.gamma", 0.0, "g draws the exponent log-uniformly from 1/(1+g) to 1+g", least=0,
        task="cxr"),
    Key("augment.horizontal_flip", 0.0, "probability; off because it breaks laterality", least=0,
        greatest=1, task="cxr"),
    Key("augment.fill", 0.0, "intensity of what lies outside of the image", task="cxr"),
    Key("augment.horizontal_flip", 0.5, "probability of mirroring a sequence", least=0, greatest=1,
        task="pose"),
)

_MODEL = (
    Key("model.name", "resnet50", "backbone and head", task="cxr"),
    Key("model.name", "pose_temporal", "lifter", task="pose"),
    Key("model.options", {}, "of the model, see `set_model`"),
    Key("model.pretrained", "", "file of foreign weights to start from, hf://ORG/REPO[/FILE] or "
        "timm/NAME; '': random weights"),
    Key("model.random_backbone", False, "allow stages that leave random weights of a backbone "
        "untrained"),
    Key("model.pretrained_part", "", "part of that file, where it holds several networks"),
    Key("model.input.mean", (), "of the input, one value or one for each of three channels; (): as "
        "the weights expect; without weights 0.449", task="cxr"),
    Key("model.input.std", (), "the same; without weights 0.226", task="cxr"),
    Key("model.input.range", (0.0, 1.0), "values of black and white before `mean` and `std`",
        task="cxr"),
    Key("model.input.size", 0, "pixels a side that the weights were trained at; 0: not known",
        least=0, task="cxr"),
    Key("model.input.source", "", "where the above is known from", task="cxr"),
)

_LOSS = (
    Key("loss.cxr", "bce", "binary cross-entropy or focal loss", choices=("bce", "focal"),
        task="cxr"),
    Key("loss.focal_gamma", 2.0, "focusing exponent of the focal loss", least=0.0, task="cxr"),
    Key("loss.class_weights", "thesis", "weights of positive and negative labels of each class",
        choices=("thesis", "chexnet", "effective_number", "none"), task="cxr"),
    Key("loss.effective_beta", 0.9999, "beta of the effective number of examples", least=0.0,
        greatest=0.9999999, task="cxr"),
    Key("loss.position", 1.0, "weight of the distance of each joint (m)", least=0.0, task="pose"),
    Key("loss.n_mpjpe", 0.0, "weight of the distance after the best scale (m)", least=0.0,
        task="pose"),
    Key("loss.velocity", 0.0, "weight of the error of velocities (m per 1/50 s)", least=0.0,
        task="pose"),
    Key("loss.acceleration", 0.0, "weight of the error of accelerations (m per (1/50 s)^2)",
        least=0.0, task="pose"),
    Key("loss.bone_length", 0.0, "weight of the error of bone lengths (m)", least=0.0,
        task="pose"),
    Key("loss.symmetry", 0.0, "weight of left bones differing from right ones (m)", least=0.0,
        task="pose"),
    Key("loss.likelihood", 0.0, "weight of the negative log density; needs uncertainty=True",
        least=0.0, task="pose"),
    Key("loss.root", 0.0, "weight of the root's distance over its depth; needs trajectory=True",
        least=0.0, task="pose"),
    Key("loss.joint_weights", "uniform", "weights of joints in `position`",
        choices=("uniform", "limbs"), task="pose"),
)

_RUN = (
    Key("stage_order", (), "names of the stages, in order"),
    Key("stages", {}, "settings of each stage, see `add_stage`"),
    Key("ema_decay", 0.0, "of the moving average of the parameters; 0: none is kept", least=0.0,
        greatest=0.9999999),
    Key("log_every", 10, "steps between lines of metrics", least=1),
    Key("evaluate_every", "1 epoch", "duration between evaluations on validation"),
    Key("checkpoint.every", "1 epoch", "duration between checkpoints"),
    Key("checkpoint.keep", 2, "newest checkpoints kept, besides the best by `monitor`", least=1),
    Key("checkpoint.monitor", "auroc", "validation metric of the best checkpoint; auroc/Effusion: "
        "of one class", choices=("auroc", "average_precision"), of_part=True, task="cxr"),
    Key("checkpoint.monitor", "mpjpe", "validation metric of the best checkpoint", of_part=True,
        choices=("mpjpe", "p_mpjpe", "mpjpe_action_mean"), task="pose"),
    Key("checkpoint.mode", "max", "whether more of it is better", choices=("max", "min"),
        task="cxr"),
    Key("checkpoint.mode", "min", "whether more of it is better", choices=("max", "min"),
        task="pose"),
    Key("report.samples", 12, "examples shown in the report", least=1, greatest=100),
    Key("watchdog", "30 minutes", "time without progress that ends the run; '0': never"),
    Key("calibration.method", "platt", "fitted on the validation split at the end of a run",
        choices=("identity", "temperature", "platt", "isotonic"), task="cxr"),
    Key("calibration.threshold", "f1", "rule of the shipped thresholds",
        choices=("f1", "youden", "sensitivity", "specificity"), task="cxr"),
    Key("calibration.target", 0.9, "level of the rules sensitivity and specificity", least=0.01,
        greatest=0.999, task="cxr"),
)

KEYS = (*_PROCESS, *_DATA, *_AUGMENT, *_MODEL, *_LOSS, *_RUN)

MATRICES = "matrices"  # a factor: 1 for arrays of two dimensions or more, 0 for vectors
DECAY: Rules = (
    (r"(^|/)(bias|scale)$", False),
    (r"(^|/)(\w*pos(ition)?s?|joint)(_?emb\w*)?(/embedding)?$", False),
    (r"(^|/)(cls|cls_token|class_token|registers)$", False),
    (r"(^|/)(ls[12]|gamma)$", False),  # LayerScale
    # What groups of attention heads learn that is no weight matrix: zero is no natural value.
    (r"(^|/)group_\d+/(span|alpha|gate|log_scale|table|talk_\w+)$", False),
    (r"(^|/)first$", True),  # the pose that decoders start from
    (r".*", MATRICES),
)
# A span runs from 0 to 1 and gates and orders are log odds: steps fit for weights are too small.
MULTIPLIERS: Rules = ((r"(^|/)group_\d+/(span|alpha|gate)$", 10.0), (r".*", 1.0))

# Of a stage, beside `duration` and `trainable`.
STAGE_KEYS = (
    Key("learning_rate", 1e-3, "at its peak", above=0),
    Key("optimizer.name", "radam", "update rule", choices=("radam", "adamw", "adam", "sgd")),
    Key("optimizer.b1", 0.9, "decay of the first moment", least=0, below=1),
    Key("optimizer.b2", 0.999, "decay of the second moment", above=0, below=1),
    Key("optimizer.eps", 1e-8, "added to the root of the second moment", above=0),
    Key("optimizer.momentum", 0.9, "of sgd", least=0, below=1),
    Key("optimizer.nesterov", False, "Nesterov's momentum, of sgd"),
    Key("optimizer.weight_decay", 0.0, "decoupled, times the learning rate; 0: off", least=0),
    Key("optimizer.clip_norm", 0.0, "greatest norm of all gradients together; 0: off", least=0),
    Key("optimizer.decay_rules", DECAY, "((regex, factor of the weight decay), ...); "
        f"{MATRICES!r}: 1 for arrays of two dimensions or more, else 0"),
    Key("optimizer.multiplier_rules", MULTIPLIERS, "((regex, factor of the learning rate), ...)"),
    Key("warmup.name", "none", "of the learning rate, see `jaxcxr.train.optim`", choices=(
        "none", "linear", "exponential", "untuned_linear", "untuned_exponential", "noam",
    )),
    Key("warmup.steps", 0, "period of the linear, exponential and noam warm-ups", least=0),
    Key("warmup.dim", 0, "width of the model, for the noam warm-up", least=0),
    Key("decay.name", "constant", "of the learning rate, see `jaxcxr.train.optim`",
        choices=("constant", "cosine", "step", "exponential")),
    Key("decay.end_factor", 0.0, "last factor of the cosine and exponential decays", least=0,
        greatest=1),
    Key("decay.boundaries", (), "fractions of the stage at which the step decay steps"),
    Key("decay.factor", 0.1, "of each step of the step decay", above=0),
)


def of_task(task: str) -> tuple[Key, ...]:
    """Returns the keys of a task's config."""
    return tuple(key for key in KEYS if key.task in ("", task))


def find(keys: tuple[Key, ...], name: str) -> Key:
    """Finds the key of a dotted name."""
    return next(key for key in keys if key.name == name)


def check_rules(rules: Any, allowed: Callable[[Any], bool], expected: str, what: str) -> None:
    """Checks the form of rules before any parameter exists.

    Arguments:
      rules: the setting to check, `((regex, value), ...)`.
      allowed: tells whether a value is possible.
      expected: the possible values in words, for the message.
      what: name of the setting for the message.

    Raises:
      UserError: not a sequence of pairs, an invalid regex or an impossible value.
    """
    for pattern, value in compile_rules(rules, what):
        if not allowed(value):
            raise UserError(
                f"{what}: the value of rule {pattern.pattern!r} must be {expected}, got {value!r}"
            )


def compile_rules(rules: Any, what: str) -> list[tuple[re.Pattern, Any]]:
    """Compiles the regexes of rules.

    Arguments:
      rules: the setting, `((regex, value), ...)`.
      what: its name for the message.

    Raises:
      UserError: not a sequence of pairs, or an invalid regex.
    """
    form = f'{what}: expected ((regex, value), ...) such as ((".*", 1.0),)'
    if not isinstance(rules, list | tuple):
        raise UserError(f"{form}, got {rules!r}")
    compiled = []
    for rule in rules:
        if not (isinstance(rule, list | tuple) and len(rule) == 2 and isinstance(rule[0], str)):
            raise UserError(f"{form}, got the rule {rule!r}")
        try:
            compiled.append((re.compile(rule[0]), rule[1]))
        except re.error as error:
            raise UserError(f"{what}: {rule[0]!r} is not a valid regex: {error}") from error
    return compiled
