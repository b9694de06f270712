"""Loads a bundle and computes with its model, without run, prepared data or executed files."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from jaxcxr import config as config_lib
from jaxcxr import models
from jaxcxr.deploy.bundle import archive
from jaxcxr.deploy.bundle.guard import Guard
from jaxcxr.errors import UserError
from jaxcxr.models.weights import inputs
from jaxcxr.xray.evaluation.calibration import Calibration
from jaxcxr.xray.images import image_files as images_lib
from jaxcxr.xray.images.films import Film

BATCH = 32  # images at once by default
_SIDES = (8, 4096)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Turns a radiograph into the model's input, as the training data were prepared.

    Attributes:
      stored_size: side of the prepared images, pixels.
      equalize: how their gray values were equalised, one of `image_files.EQUALIZE`.
      image_size: side of the model's input, pixels.
      mean, std: of gray values between 0 and 1; the model sees (x / 255 - mean) / std.
    """

    stored_size: int
    equalize: str
    image_size: int
    mean: float
    std: float

    def pixels(self, film: Film) -> np.ndarray:
        """Turns a radiograph into uint8 `[image_size, image_size]`."""
        return images_lib.resize(film.prepared(self.stored_size, self.equalize), self.image_size)

    def normalized(self, pixels: Any) -> jax.Array:
        """Normalises pixels uint8 `[n, S, S]` to float32 `[n, S, S, 1]`; traceable."""
        unit = jnp.asarray(pixels)[..., None].astype(jnp.float32) / 255.0
        return (unit - self.mean) / self.std


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A model with everything its outputs need to be interpreted.

        bundle = Bundle.load("model.jaxcxr")
        pixels = np.stack([bundle.preprocess(film_files.read(path)) for path in paths])
        logits = bundle.logits(pixels)                   # [n, classes]
        probabilities = bundle.probabilities(logits)     # calibrated
        found = bundle.findings(probabilities)           # at the shipped thresholds

    A bundle of the task "pose" has no methods for images; `deploy.predict.lifter.Lifter` lifts
    with it.

    Attributes:
      path: of the file.
      facts: of its `bundle.json`: model, training data, preprocessing, versions.
      config: of the run, as `config.from_saved` gives it.
      variables: `params` and `batch_stats`, NumPy arrays.
      metrics: of its `split` (test, validation where there is none, or ""): `scalars`, and
        `report` with intervals where there is one.
      licence: text of the licence of the weights.
      calibration: of probabilities, with thresholds; None for poses.
      guard: flags images that are no frontal chest radiograph; None for poses.
      digest: SHA-256 that identifies this bundle.
    """

    path: pathlib.Path
    facts: Mapping[str, Any]
    config: Any
    variables: Mapping[str, Any]
    metrics: Mapping[str, Any]
    licence: str
    calibration: Calibration | None
    guard: Guard | None
    digest: str

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Bundle":
        """Reads a bundle; versions, hashes, sizes, names and shapes are checked.

        Raises:
          UserError: the file is no bundle, of another version, or damaged.
        """
        path = pathlib.Path(path).expanduser()
        found = archive.read(path)
        facts = found.facts
        try:
            bundle = cls(
                path=path, facts=facts, config=_config(found, path),
                variables=_variables(found), metrics=found.json("metrics.json"),
                licence=found.files["LICENSE.txt"].decode("utf-8", "replace"),
                calibration=_calibration(found, path),
                guard=_guard(found),
                digest=found.digest,
            )
            if bundle.task == "cxr":
                bundle._check()
        except (KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise UserError(
                f"{path} is damaged ({type(error).__name__}: {error}); make it again by "
                "`jaxcxr bundle`"
            ) from error
        return bundle

    @property
    def task(self) -> str:
        """"cxr" or "pose"."""
        return self.config.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the model's outputs; none for poses."""
        return tuple(self.facts["classes"])

    @property
    def model_name(self) -> str:
        """Name of the architecture."""
        return self.config.model.name

    @functools.cached_property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of images, of a model of radiographs only."""
        if self.task != "cxr":
            raise UserError(f"{self.path} is a model of the task {self.task!r}, not of images")
        return Preprocessing(**self.facts["preprocessing"])

    @property
    def fitted(self) -> tuple[Calibration, Guard]:
        """Calibration and guard, of a model of radiographs only."""
        if self.calibration is None or self.guard is None:
            raise UserError(f"{self.path} is a model of the task {self.task!r}, not of images")
        return self.calibration, self.guard

    @property
    def image_size(self) -> int:
        """Side of the model's input, pixels."""
        return self.preprocessing.image_size

    @property
    def thresholds(self) -> np.ndarray:
        """Least probability of a predicted finding, float64 `[classes]`."""
        return self.fitted[0].thresholds

    @property
    def description(self) -> str:
        """Describes the model in one line."""
        training = self.facts["training"]
        return (f"{self.model_name} of {training['run']}, step {training['step']}, trained on "
                f"{training['source']} (bundle {self.digest[:12]})")

    @functools.cached_property
    def model(self) -> Any:
        """The Linen module."""
        return models.create(
            self.model_name, dtype=jnp.dtype(self.config.dtype),
            **{**self.config.model.options.to_dict(), **self._decided()},
        )

    def _decided(self) -> dict[str, Any]:
        """Options of the model that the data and the initial weights decided."""
        if self.task != "cxr":
            return {}
        return {"classes": len(self.classes),
                "colors": inputs.of_config(self.config.model.input).colors}

    def version_differences(self) -> list[str]:
        """Lists packages of another version than in training, such as "jax 0.10.2 -> 0.11.0"."""
        now = config_lib.provenance()["packages"]
        return [
            f"{name} {version} -> {now[name]}"
            for name, version in self.facts["versions"]["packages"].items()
            if name in now and now[name] != version
        ]

    def preprocess(self, film: Film) -> np.ndarray:
        """Turns a radiograph into pixels uint8 `[S, S]` for the model."""
        return self.preprocessing.pixels(film)

    def apply(self, variables: Any, pixels: Any) -> tuple[jax.Array, jax.Array]:
        """Computes logits `[n, classes]`, features `[n, channels]` of pixels uint8 `[n, S, S]`."""
        inputs = self.preprocessing.normalized(pixels)

        def both(module, x):
            features = module.backbone(x.astype(module.dtype), False)
            return module.head(features, train=False), features.astype(jnp.float32)

        return self.model.apply(variables, inputs, method=both)

    @functools.cached_property
    def forward(self) -> Any:
        """Compiled `pixels uint8 [n, S, S] -> (logits, features)`; each n compiles once."""
        placed, compiled = jax.device_put(self.variables), jax.jit(self.apply)
        return lambda pixels: compiled(placed, pixels)

    def outputs(self, pixels: np.ndarray, batch: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
        """Computes logits `[n, classes]` and features `[n, channels]`, float32, of `pixels`.

        Raises:
          ValueError: `pixels` are not uint8 `[n, S, S]`, as `preprocess` returns them.
        """
        size = self.image_size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size):
            raise ValueError(
                f"{pixels.dtype} {list(pixels.shape)} must be uint8 [n, {size}, {size}]"
            )
        parts = [
            jax.device_get(jax.tree.map(lambda x, n=n: x[:n], self.forward(part)))
            for n, part in _batches(pixels, batch)
        ]
        if not parts:
            shapes = jax.eval_shape(self.apply, self.variables, pixels)
            parts = [[np.zeros(shape.shape, np.float32) for shape in shapes]]
        logits, features = (np.concatenate(column) for column in zip(*parts, strict=True))
        return logits, features

    def logits(self, pixels: np.ndarray, batch: int = BATCH) -> np.ndarray:
        """Computes logits float32 `[n, classes]`; see `outputs`."""
        return self.outputs(pixels, batch)[0]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Turns logits into calibrated probabilities, float64 `[n, classes]`."""
        return self.fitted[0].probabilities(logits)

    def findings(self, probabilities: np.ndarray) -> np.ndarray:
        """Predicts findings by the thresholds, bool `[n, classes]`."""
        return self.fitted[0].findings(probabilities)

    @functools.cached_property
    def explainer(self) -> Any:
        """Explainer of the model, for its heat maps."""
        from jaxcxr.xray.explain import saliency

        black = float(-self.preprocessing.mean / self.preprocessing.std)
        return saliency.Explainer(self.model, self.variables, black)

    def heatmaps(self, method: str, pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Draws maps float32 `[n, S, S]` of pixels uint8 `[n, S, S]`, for one class `[n]` each.

        Raises:
          UserError: the method, of `saliency.METHODS`, does not explain this model.
        """
        return self.explainer.maps(method, self.preprocessing.normalized(pixels), classes)

    def _check(self) -> None:
        """Checks that the parts of a loaded file fit each other."""
        size = self.image_size
        if not isinstance(size, int) or not _SIDES[0] <= size <= _SIDES[1]:
            raise ValueError(f"image_size {size!r}")
        if self.preprocessing.equalize not in images_lib.EQUALIZE:
            raise ValueError(f"equalize {self.preprocessing.equalize!r}")
        if self.calibration is None or self.guard is None:
            raise ValueError("calibration or guard is missing")
        if self.calibration.names != self.classes:
            raise ValueError("the calibration is of other classes")
        images = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
        check_shapes(self.variables, jax.eval_shape(self.model.init, jax.random.key(0), images))
        pixels = jax.ShapeDtypeStruct((1, size, size), jnp.uint8)
        logits, features = jax.eval_shape(self.apply, self.variables, pixels)
        if logits.shape[1] != len(self.classes) or features.shape[1] != self.guard.channels:
            raise ValueError("classes or guard are those of another model")


def check_shapes(variables: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Checks that variables have the names and shapes of `wanted`, those of `model.init`.

    Raises:
      ValueError: a name is missing or unknown, or has another shape.
    """
    have = {k: v.shape for k, v in traverse_util.flatten_dict(dict(variables), sep="/").items()}
    need = {
        k: v.shape for k, v in traverse_util.flatten_dict(dict(wanted), sep="/").items()
        if k.startswith(("params/", "batch_stats/"))
    }
    wrong = [name for name in {**need, **have} if have.get(name) != need.get(name)]
    if wrong:
        raise ValueError(f"{len(wrong)} weights do not fit the model: {', '.join(wrong[:3])}")


def flat_weights(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Flattens weights to names such as "params/head/logits/kernel", as a bundle stores them."""
    flat = traverse_util.flatten_dict(jax.device_get(dict(variables)), sep="/")
    return {name: np.ascontiguousarray(value) for name, value in flat.items()}


def _batches(pixels: np.ndarray, batch: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields padded parts of `batch` images, each after its number of real images."""
    for begin in range(0, len(pixels), batch):
        part = pixels[begin : begin + batch]
        count = len(part)
        yield count, np.concatenate([part, np.zeros((batch - count, *part.shape[1:]), part.dtype)])


def _variables(found: archive.Archive) -> dict[str, Any]:
    flat = safetensors.numpy.load(found.files["weights.safetensors"])
    return {"batch_stats": {}, **traverse_util.unflatten_dict(flat, sep="/")}


def _config(found: archive.Archive, path: pathlib.Path) -> Any:
    try:
        return config_lib.from_saved(found.json("config.json"))
    except AttributeError as error:
        raise UserError(f"{path} is damaged: config.json is no config ({error})") from error


def _guard(found: archive.Archive) -> Guard | None:
    content = found.files.get("guard.safetensors")
    return None if content is None else Guard.from_bytes(content)


def _calibration(found: archive.Archive, path: pathlib.Path) -> Calibration | None:
    if "calibration.json" not in found.files:
        return None
    return Calibration.from_json(found.json("calibration.json"), f"{path}: calibration.json")
