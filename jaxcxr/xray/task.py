"""Defines the chest X-ray task: multi-label detection of findings, unknown labels masked."""

import dataclasses
import functools
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr.data import preparation
from jaxcxr.data.label_tables import NEGATIVE, POSITIVE, UNKNOWN
from jaxcxr.errors import UserError
from jaxcxr.models.attention.geometry import Grid
from jaxcxr.models.sequence import look
from jaxcxr.models.weights import inputs as weight_inputs
from jaxcxr.report import attention_figures, curves, page
from jaxcxr.report.canvas import save
from jaxcxr.task import LEFT_OUT, Evaluation
from jaxcxr.xray import augment, losses, relabeling
from jaxcxr.xray.evaluation import xray_metrics
from jaxcxr.xray.images import manifest, radiographs
from jaxcxr.xray.report import xray_figures, xray_page, xray_results

_MOST_MAPS = 4  # images over which attention is drawn

class XrayTask:
    """Detects findings in chest X-rays; implements `jaxcxr.task.Task`.

    `open_split` opens the radiographs of a split (random access, with a `manifest`), `unlearned`
    maps classes of the data that cannot be learned, and are none of the task's, to the reason.
    """

    def __init__(
        self, config, open_split: Callable[[str], radiographs.Radiographs],
        unlearned: Mapping[str, str] = types.MappingProxyType({}),
    ):
        self._config = config
        self.expects = weight_inputs.of_config(config.model.input)
        self._unlearned = unlearned
        self.source = functools.cache(open_split)
        train = self.source("train").manifest
        self.classes = train.classes
        self.loss_weights = {"cross_entropy": 1.0}
        self.span_units = {"blocks": "patches"}
        self._gamma = config.loss.focal_gamma if config.loss.cxr == "focal" else 0.0
        self._positive, self._negative = losses.class_weights(
            train.labels, config.loss.class_weights, config.loss.effective_beta
        )

    @classmethod
    def open(cls, config) -> "XrayTask":
        """Opens the task over the prepared data of its config.

        The classes are those that can be learned: a class without both positive and negative
        labels among the images to train on, folds left out apart, has no output.

        Raises:
          UserError: unprepared data, or no class can be learned.
        """
        directory = preparation.find_or_generate(config)
        rows = manifest.read(directory, "train")
        if config.data.labels:
            labels = radiographs.read_labels(config.data.labels, directory)
            rows = dataclasses.replace(rows, labels=labels)
        if config.data.folds:
            rows = rows.take(_rows_of("train", rows.patient_id, config.data))
        unlearned = manifest.unlearned(rows.labels, rows.classes)
        classes = tuple(name for name in rows.classes if name not in unlearned)
        if len(rows) and not classes:
            raise UserError(
                f"{directory}: no class can be learned: {_reasons(unlearned)}. Each needs positive "
                "and negative labels in the train split."
            )
        return cls(
            config, functools.partial(_open_split, directory, config.data, classes), unlearned
        )

    @classmethod
    def without_data(cls, config) -> "XrayTask":
        """Opens the task over one blank radiograph.

        Raises:
          UserError: only the prepared data define the classes, and there are none.
        """
        classes = preparation.described(config).classes
        if not classes:
            classes = manifest.read(preparation.find_or_generate(config)).classes
        blank = radiographs.BlankRadiograph(config.data.image_size, tuple(classes))
        return cls(config, lambda split: blank)

    def sampling(self) -> np.ndarray | None:
        """Computes the probability of each training image, by `data.sampling`."""
        rows = self.source("train").manifest
        return losses.sampling(rows.labels, rows.source, self._config.data.sampling)

    def model_options(self) -> dict:
        """Gives the model one output per class, and the channels that its weights expect."""
        return {"classes": len(self.classes), "colors": self.expects.colors}

    def inputs(self, batch, train=False):
        """Normalises images to float32 `[batch, size, size, 1]`."""
        del train
        mean, std = self.expects.gray
        return (_unit(batch["image"]) - mean) / std, {}

    def augment(self, key, batch):
        """Augments images, seeded by the position of each example in the stream."""
        image = augment.augment_xray(
            key, _unit(batch["image"]), self._config.augment, batch["position"]
        )
        return {**batch, "image": image}

    def divisors(self, batch):
        """Counts the known labels of the batch."""
        return {"cross_entropy": jnp.sum(self._known(batch).astype(jnp.float32))}

    def loss_sums(self, outputs, batch):
        """Sums the cross-entropy over known labels."""
        loss = losses.cross_entropy(
            outputs, batch["labels"], self._positive, self._negative, self._gamma
        )
        return {"cross_entropy": jnp.sum(jnp.where(self._known(batch), loss, 0.0))}

    def predict(self, outputs, batch):
        """Computes scores in (0, 1), `[batch, classes]`."""
        return {"scores": jax.nn.sigmoid(outputs.astype(jnp.float32))}

    def evaluate(self, split: str, predictions) -> Evaluation:
        """Computes per-class and macro AUROC and average precision."""
        labels = self.source(split).manifest.labels
        table = xray_metrics.evaluate(labels, predictions["scores"], self.classes)
        return Evaluation(table.scalars(), table.to_text())

    def ids(self, split: str, index) -> list[str]:
        """Returns image ids."""
        return [str(name) for name in self.source(split).manifest.image_id[np.asarray(index)]]

    def calibrate(self, predictions, step: int, workdir: pathlib.Path) -> None:
        """Writes `calibration.json` and `predictions/validation.csv`."""
        xray_results.write_calibration(
            self.source("validation").manifest, predictions["scores"], self._config.calibration,
            {"step": step, "source": self._config.data.source}, workdir,
        )

    def write(self, split: str, predictions, workdir: pathlib.Path) -> str:
        """Writes `predictions/<split>.csv`, ROC curves, samples and metrics with intervals."""
        rows, scores = self.source(split).manifest, predictions["scores"]
        folder = workdir / "report"
        figure = xray_figures.roc_figure(rows.labels, scores, self.classes)
        save(figure, folder / f"roc_{split}.png")
        chosen = _spread(rows.labels, self._config.report.samples)
        pictures = np.stack([self.source(split)[i]["image"][..., 0] for i in chosen])
        figure = xray_figures.samples_figure(
            pictures, rows.labels[chosen], scores[chosen], self.classes
        )
        save(figure, folder / f"samples_{split}.png")
        table = xray_results.write_metrics(rows, scores, workdir)
        xray_results.write_scores(rows, scores, workdir / "predictions" / f"{split}.csv")
        return table

    def _examples(self, split: str) -> np.ndarray:
        """Chooses images that show as many findings as possible."""
        count = min(_MOST_MAPS, self._config.report.samples)
        return _spread(self.source(split).manifest.labels, count)

    def _attention_figure(self, split: str, where, index, stacks):
        """Draws last block and rollout over radiographs; None if the last block has no weights."""
        grids = [stack for stack in stacks if isinstance(where[stack], Grid)]
        if len(grids) != 1:
            return None
        grid, blocks = where[grids[0]], stacks[grids[0]]
        *_, (name, last) = blocks.items()
        if "weights" not in last:
            return None
        rows, columns, token = grid.rows, grid.columns, grid.prefix > 0
        maps = attention_figures.patch_maps(last["weights"], rows, columns, token=token)
        rolled = None
        if all("weights" in block for block in blocks.values()):
            rolled = attention_figures.rollout([block["weights"] for block in blocks.values()])
            rolled = attention_figures.patch_maps(rolled, rows, columns, token=token)
        images = self.source(split).read(index)["image"][..., 0]
        labels = self.source(split).manifest.labels[index]
        query = "of the class token" if token else "of all patches, mean"
        return attention_figures.image_attention_figure(
            images, maps, rolled, [self._findings(row) for row in labels],
            f"attention {query}, in {name}",
        )

    def _findings(self, labels: np.ndarray) -> str:
        """Formats positive labels as a title of two lines."""
        names = [self.classes[i].replace("_", " ") for i in np.flatnonzero(labels == POSITIVE)]
        more = f" +{len(names) - 2}" if len(names) > 2 else ""
        return "\n".join(names[:2]) + more if names else "no finding"

    def draw(self, split: str, model, variables, workdir: pathlib.Path) -> list[str]:
        """Draws training curves and attention maps."""
        curves.write(workdir, xray_metrics.AUROC)
        if not split:
            return []
        if variables is None:
            return ["no figures of attention: they are drawn by runs of a single process"]
        seen = look.at_examples(model, variables, self._read(split), self._examples(split))
        figure = functools.partial(self._attention_figure, split, seen and seen.where)
        return attention_figures.write(seen, figure, self.span_units, workdir / "report")

    def _read(self, split: str) -> Callable:
        return lambda index: self.inputs(self.source(split).read(index))

    def page(self, split: str, model, variables, workdir: pathlib.Path) -> pathlib.Path:
        """Writes the report page."""
        title = f"{self._config.data.source}, {self._config.model.name}"
        if not split:
            return page.write(page.unevaluated(workdir, self, title), workdir)
        html = xray_page.build(self, model, variables, split, workdir, title)
        return page.write(html, workdir)

    @staticmethod
    def stress_test():
        """Returns the module that runs the stress test, see `jaxcxr.task.StressTest`."""
        from jaxcxr.xray.evaluation import stress_xrays  # lazily: training does not need it

        return stress_xrays

    def facts(self) -> dict:
        """Returns the classes, their training labels, and the classes that cannot be learned."""
        labels = self.source("train").manifest.labels
        words = {"positive": POSITIVE, "negative": NEGATIVE, "unknown": UNKNOWN}
        counts = {
            name: {word: int((labels[:, i] == value).sum()) for word, value in words.items()}
            for i, name in enumerate(self.classes)
        }
        return {
            "classes": list(self.classes), "labels": counts, "unlearned": dict(self._unlearned)
        }

    def describe(self) -> dict[str, str]:
        """Lists images and patients of each split, and the training labels of each class."""
        lines, settings = {}, self._config.data
        splits = ("train", LEFT_OUT) if settings.folds else ("train",)
        for split in (*splits, "validation", "test"):
            rows = self.source(split).manifest
            patients = len(np.unique(rows.patient_id))
            lines[split] = f"{len(rows):,} images of {patients:,} patients" if len(rows) else "none"
        if settings.folds:
            numbers = ", ".join(map(str, settings.left_out))
            lines[LEFT_OUT] += f" (folds {numbers} of 0 to {settings.folds - 1})"
        if settings.labels:
            lines["training labels"] = settings.labels
        if self._unlearned:
            lines["not learned"] = f"{_reasons(self._unlearned)}; the model has no such output"
        lines["class weights"] = self._weight_table()
        return lines

    def _weight_table(self) -> str:
        """Formats labels and loss weights of each class, for a screen of 80 columns."""
        labels = self.source("train").manifest.labels
        counts = ((labels == value).sum(0) for value in (POSITIVE, NEGATIVE, UNKNOWN))
        weights = ([f"{w:.4f}" for w in side] for side in (self._positive, self._negative))
        rows = [("", "pos.", "neg.", "unk.", "w+", "w-")]
        rows += zip(self.classes, *counts, *weights, strict=True)
        widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
        return "\n".join(
            " ".join([f"{name:{widths[0]}}",
                      *(f"{cell!s:>{w}}" for cell, w in zip(cells, widths[1:], strict=True))])
            for name, *cells in rows
        )

    def _known(self, batch):
        return (batch["labels"] != UNKNOWN) & batch["valid"][:, None]


def _unit(image):
    """Scales uint8 to float32 in [0, 1]; floats pass."""
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255.0
    return image


def _spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Chooses examples that show as many findings as possible: the first of each class."""
    positive = labels == POSITIVE
    firsts = [int(np.argmax(column)) for column in positive.T if column.any()]
    healthy = np.flatnonzero(~positive.any(1))[:1]
    chosen = list(dict.fromkeys([*firsts, *map(int, healthy), *range(len(labels))]))
    return np.array(chosen[:count], dtype=int)


def _reasons(unlearned: Mapping[str, str]) -> str:
    """Formats classes by the reason why they cannot be learned."""
    words = dict.fromkeys(unlearned.values())
    return "; ".join(
        f"{', '.join(name for name, why in unlearned.items() if why == word)} ({word})"
        for word in words
    )


def _open_split(
    directory: pathlib.Path, settings, classes: Sequence[str], split: str
) -> radiographs.Radiographs:
    """Opens a split; `data.labels` and `data.folds` only affect "train" and `LEFT_OUT`."""
    if split not in ("train", LEFT_OUT):
        return radiographs.Radiographs(directory, split, settings.image_size, classes=classes)
    labels = radiographs.read_labels(settings.labels, directory) if settings.labels else None
    rows = None
    if settings.folds:
        rows = _rows_of(split, manifest.read(directory, "train").patient_id, settings)
    elif split == LEFT_OUT:
        raise UserError("config.data.folds is 0: no training image is left out.")
    return radiographs.Radiographs(
        directory, "train", settings.image_size, rows, labels, classes
    )


def _rows_of(split: str, patients: np.ndarray, settings) -> np.ndarray:
    """Masks the training images of `data.folds` that "train" or `LEFT_OUT` holds."""
    fold = relabeling.folds(patients, settings.folds, settings.fold_seed)
    return np.isin(fold, settings.left_out, invert=split == "train")
