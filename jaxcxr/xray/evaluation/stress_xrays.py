"""Tests a classifier of radiographs for shortcuts: regions, attributes, sources, quality.

AUROC is the macro mean over the classes where it is defined, with a bootstrap over patients;
changes are paired, of the same resamples. Beside the model stand predictions without any pixel of
the lungs: from parts of the image, and from view, sex, age and source alone (DeGrave, Janizek and
Lee 2021; Maguolo and Nanni 2021).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import preprocessing

from jaxcxr.data.label_tables import UNKNOWN
from jaxcxr.report import curves, tables
from jaxcxr.report.tables import Metric, number
from jaxcxr.statistics import association, intervals, ranking
from jaxcxr.xray.evaluation.xray_metrics import AUROC
from jaxcxr.xray.images import damage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MACRO = f"macro {AUROC.title}"
_CHANGE = Metric(name="change", form="+.3f", undefined=AUROC.undefined)
KINDS = ("regions", "attributes", "sources", *damage.CORRUPTIONS)
_UNITS = {
    "noise": "SD in gray values", "blur": "SD in pixels", "contrast": "share left",
    "jpeg": "quality", "rotation": "degrees", "inversion": "share of the negative",
}
_UNTOUCHED = {"contrast": 1.0, "jpeg": 100.0}
_AGES = (18, 40, 60, 75)
_ATTRIBUTES = ("source", "view", "sex")
# Of what a model knows above chance, that it may keep without the lungs before this is a warning.
_KEPT = 0.5
_NEAR = 0.05  # AUROC that attributes alone may come near the model
_MOST_TRAINING = 4000  # images whose features are computed


class Changed:
    """Holds a split (or some `rows` of it) whose uint8 images `[H, W]` are changed one by one."""

    def __init__(
        self, source: Any, change: Callable[[np.ndarray, int], np.ndarray] | None = None,
        rows: np.ndarray | None = None,
    ):
        self._source, self._change = source, change
        self._rows = np.arange(len(source)) if rows is None else rows
        self.manifest = source.manifest if rows is None else source.manifest.take(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads several images at once, as the split's own `read` gives them."""
        rows = self._rows[indices]
        found = self._source.read(rows)
        if self._change is not None:
            images = [
                self._change(image, int(row))
                for image, row in zip(found["image"][..., 0], rows, strict=True)
            ]
            found["image"] = np.stack(images)[..., None]
        return found


def measure(
    task: Any,
    split: str,
    predict: Callable[[Any], Mapping[str, np.ndarray]],
    kinds: Sequence[str] = KINDS,
    resamples: int = 1000,
    seed: int = 0,
    say: Callable[[str], None] = print,
    *,
    features: Callable[[Any], np.ndarray],
) -> dict:
    """Measures AUROC under every change, and how well attributes and features predict findings.

    Arguments:
      task: the `XrayTask`.
      split: of its splits.
      predict: predictions of the model for every image of a source, in order.
      kinds: of `KINDS`.
      resamples, seed: of the bootstrap over patients; the seed also of random changes.
      say: gets a line for each result.
      features: pooled features `[n, d]` of every image of a source, in order.

    Returns:
      The content of stress.json: `auroc` and `auroc_interval` of the untouched images, `classes`,
      and where asked for `regions`, `attributes`, `sources`, `kinds` with `levels`; `warnings`,
      `counts`, `settings`. None where undefined.
    """
    source = task.source(split)
    rows = source.manifest
    scored = _Scored(rows.labels, rows.patient_id, resamples, seed)
    scores = predict(source)["scores"]
    base = scored.draw(scores)
    result = {
        "task": "cxr", "split": split, **scored.entry(base), "kinds": {},
        "classes": scored.classes(base, rows.classes),
        "counts": {"images": len(rows), "patients": len(np.unique(rows.patient_id))},
        "settings": {
            "resamples": resamples, "seed": seed, "level": intervals.LEVEL,
            "resampled": "patients, with all images", "lungs": damage.LUNGS,
            "border": damage.BORDER, "low_pass": damage.LOW_PASS,
        },
    }
    say(f"untouched: {_MACRO} {number(result['auroc'])}")

    def under(change, label):
        found = scored.entry(scored.draw(predict(Changed(source, change))["scores"]), base)
        say(f"{label}: {_MACRO} {number(found['auroc'])}")
        return found

    if "regions" in kinds:
        result["regions"] = {
            name: under(lambda image, _, change=change: change(image), name)
            for name, change in damage.REGIONS.items()
        }
    for kind in damage.CORRUPTIONS:
        if kind in kinds:
            result["kinds"][kind] = _levels(kind, under, scored.entry(base, base), seed)
    if "attributes" in kinds or "sources" in kinds:
        _add_probes(result, task, split, features, kinds, scored, (scores, base), say)
    result["warnings"] = _warnings(result)
    return result


def _levels(kind: str, under, untouched: dict, seed: int) -> dict:
    levels = [{"level": _UNTOUCHED.get(kind, 0.0), **untouched}]
    for level in damage.CORRUPTIONS[kind][1]:
        levels.append({"level": level, **under(
            lambda image, row, level=level: damage.corrupted(image, kind, level, (seed, row)),
            f"{kind} {level:g}",
        )})
    return {"title": kind, "unit": _UNITS[kind], "levels": levels}


class _Scored:
    """Computes AUROC of scores on the same images, from the same resamples of patients."""

    def __init__(self, labels, patients, resamples: int, seed: int):
        self._labels, self._patients = labels, patients
        self._resamples, self._seed = resamples, seed

    def draw(self, scores: np.ndarray, labels: np.ndarray | None = None, rows=slice(None)):
        """Computes AUROC `[classes]` and of the resamples `[classes, resamples]`."""
        labels = (self._labels if labels is None else labels)[rows]
        usable = ~np.isnan(scores).all(0)
        labels = np.where(usable, labels, UNKNOWN)
        scores = np.where(usable, scores, 0.0)
        whole = np.array([
            AUROC.value(*of_class) for of_class in zip(labels.T, scores.T, strict=True)
        ])
        drawn = ranking.cluster_bootstrap(
            labels, scores, self._patients[rows], self._resamples, self._seed,
            {AUROC.name: AUROC.measure},
        )
        return whole, drawn.values[AUROC.name]

    def entry(self, found, base=None) -> dict:
        """Describes macro AUROC with its interval, and the change from another with its own."""
        auroc, drawn = _macro(*found)
        entry = AUROC.entry(auroc, intervals.percentile_interval(drawn))
        if base is not None:
            before, resampled = _macro(*base)
            ends = intervals.percentile_interval(drawn - resampled)
            entry |= _CHANGE.entry(auroc - before, ends)
        return entry

    @staticmethod
    def classes(found, names: Sequence[str]) -> dict[str, dict]:
        """Describes AUROC of each class with its interval."""
        return {
            name: AUROC.entry(value, intervals.percentile_interval(drawn))
            for name, value, drawn in zip(names, *found, strict=True)
        }


def _macro(whole: np.ndarray, drawn: np.ndarray) -> tuple[float, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing are NaN
        return float(np.nanmean(whole)), np.nanmean(drawn, 0)


def _add_probes(result, task, split, features, kinds, scored, untouched, say) -> None:
    """Adds the scores of linear models of attributes and of features, fitted on training images."""
    train, test = task.source("train"), task.source(split)
    chosen = np.arange(len(train))
    if len(chosen) > _MOST_TRAINING:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, _MOST_TRAINING, replace=False))
    known, rows = train.manifest.take(chosen), test.manifest
    seen = features(Changed(train, rows=chosen)), features(test)
    say(f"features: {len(known):,} training images, {seen[0].shape[1]} numbers each")
    if "attributes" in kinds:
        result["attributes"] = _attributes(known, rows, seen, scored, untouched[1])
    if "sources" in kinds:
        result["sources"] = _sources(known, rows, seen, scored, untouched[0])


def _attributes(known, rows, seen, scored, base) -> dict:
    """Predicts findings from attributes alone, and attributes from the model's features."""
    alone = {}
    for name in (*_ATTRIBUTES, "age", "all"):
        names = (*_ATTRIBUTES, "age") if name == "all" else (name,)
        encoder = preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        train = encoder.fit_transform(_columns(known, names))
        if train.shape[1] > len(names):
            test = encoder.transform(_columns(rows, names))
            found = scored.draw(association.probe_scores(train, known.labels, test))
            alone[name] = scored.entry(found, base)
    told = {}
    for name in _ATTRIBUTES:
        values = getattr(known, name)
        if len(set(values) - {""}) < 2:
            continue
        labels, groups = association.indicators(values)
        there, _ = association.indicators(getattr(rows, name), groups)
        found = scored.draw(association.probe_scores(seen[0], labels, seen[1]), there)
        told[name] = {"groups": groups, **scored.entry(found)}
    return {"findings_from": alone, "from_features": told}


def _columns(rows, names: Sequence[str]) -> np.ndarray:
    """Lists attributes as text, `[n, names]`; ages in bands."""
    bands = np.where(rows.age < 0, "", np.searchsorted(_AGES, rows.age, side="right").astype(str))
    return np.stack([bands if name == "age" else getattr(rows, name) for name in names], 1)


def _sources(known, rows, seen, scored, scores) -> dict:
    """Computes AUROC on each source's images; of linear heads that have, or have not, seen it."""
    names = sorted(set(known.source) & set(rows.source))
    found = {}
    for name in names if len(names) > 1 else ():
        here = np.flatnonzero(rows.source == name)
        others = known.source != name
        heads = {
            "head_of_all": np.ones(len(others), bool), "head_of_others": others,
        }
        found[name] = {
            "images": len(here), "within": scored.entry(scored.draw(scores[here], rows=here)),
        }
        for head, chosen in heads.items():
            told = association.probe_scores(seen[0][chosen], known.labels[chosen], seen[1][here])
            found[name][head] = scored.entry(scored.draw(told, rows=here))
    return found


def _warnings(result: Mapping) -> list[str]:
    """Warns where the headline may come from a shortcut."""
    lines: list[str] = []
    auroc = result["auroc"]
    if auroc is None:
        return lines
    for name in ("lungs_out", "border_only"):
        left = result.get("regions", {}).get(name, {}).get("auroc")
        if left is not None and left - 0.5 > _KEPT * (auroc - 0.5) > 0:
            lines.append(
                f"{_TITLES[name]}, the model still reaches {left:.3f} of {auroc:.3f}: more than "
                "half of what it knows comes from outside the lungs"
            )
    alone = result.get("attributes", {}).get("findings_from", {})
    for name, entry in alone.items():
        if entry["auroc"] is not None and entry["auroc"] > max(auroc - _NEAR, 0.55):
            which = "all attributes together" if name == "all" else f"the {name} alone"
            lines.append(
                f"{which}, without any image: {entry['auroc']:.3f}, the model {auroc:.3f}; the "
                "headline may be a shortcut"
            )
    return lines


_TITLES = {
    "lungs_out": "with the lungs blacked out", "border_only": "from the border alone",
    "center_only": "from the center alone", "low_pass": "from a low pass alone",
}


def figure(result: Mapping) -> "Figure":
    """Curves of corruptions and bars of regions, see `curves.xray_figure`."""
    return curves.xray_figure(result, AUROC)


def to_text(result: Mapping) -> str:
    """Formats the result as aligned tables."""
    blocks = [_headline(result)]
    blocks += ["\n".join([title, *tables.aligned(lines)]) for title, lines in sections(result)]
    return "\n\n".join(blocks)


def to_markdown(result: Mapping) -> str:
    """Formats the result as a page of Markdown tables."""
    blocks = ["# Stress test", _headline(result)]
    for title, lines in sections(result):
        blocks.append("\n".join([f"## {title}", "", *tables.markdown(lines)]))
    return "\n\n".join(blocks) + "\n"


def _headline(result: Mapping) -> str:
    alone = result.get("attributes", {}).get("findings_from", {})
    beside = "".join(
        f"; from {'all attributes' if name == 'all' else name} alone {number(entry['auroc'])}"
        for name, entry in alone.items() if name in ("source", "view", "all")
    )
    lines = [
        f"{_MACRO} {AUROC.cell(result)} on {result['counts']['images']:,} images of "
        f"{result['counts']['patients']:,} patients ({result['split']}){beside}",
        "[95 % over patients; in each resample over the classes that it defines]",
    ]
    return "\n".join([*lines, *(f"warning: {line}" for line in result["warnings"])])


def sections(result: Mapping) -> list[tuple[str, list[list[str]]]]:
    """Lists title and lines of each table."""
    found = []
    if "regions" in result:
        found.append(("Parts of the image", [
            ["what remains", _MACRO, "change"], ["whole image", AUROC.cell(result), ""],
            *([_TITLES[name], *_changed(entry)] for name, entry in result["regions"].items()),
        ]))
    if "attributes" in result:
        found.append(("Findings predicted from attributes, without the image", [
            ["attribute", _MACRO, "change"],
            *([name, *_changed(entry)]
              for name, entry in result["attributes"]["findings_from"].items()),
        ]))
        found.append(("Attributes predicted from the model's features", [
            ["attribute", AUROC.title, "groups"],
            *([name, AUROC.cell(entry), ", ".join(entry["groups"])]
              for name, entry in result["attributes"]["from_features"].items()),
        ]))
    if result.get("sources"):
        found.append(("Images of one source", [
            ["source", "images", "model", "linear head, all sources", "trained without it"],
            *([name, f"{entry['images']:,}", *(
                AUROC.cell(entry[key]) for key in ("within", "head_of_all", "head_of_others")
            )] for name, entry in result["sources"].items()),
        ]))
    for kind in result["kinds"].values():
        found.append((kind["title"], [
            [kind["unit"], _MACRO, "change"],
            *([f"{entry['level']:g}", *_changed(entry)] for entry in kind["levels"]),
        ]))
    return [(title, lines) for title, lines in found if len(lines) > 1]


def _changed(entry: Mapping) -> list[str]:
    return [AUROC.cell(entry), _CHANGE.cell(entry)]
