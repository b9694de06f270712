"""Scores 2D keypoints against COCO's or MPII's labels, with intervals.

The files are described in `coco_keypoints` and `mpii_keypoints`. COCO's detections are scored by AP
and AR over object keypoint similarities (OKS), MPII's people by PCKh; both by PCK, PDJ and PCP.
Intervals are percentiles over resamples of whole images.
"""

import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import jaxcxr
from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import coco_keypoints, keypoint_ap, keypoint_metrics, mpii_keypoints
from jaxcxr.pose.evaluation.keypoint_metrics import People
from jaxcxr.report import tables
from jaxcxr.statistics import intervals

_AP_NOTE = (
    "as COCO's evaluation; resamples tend to lie above, since detections of an image drawn twice "
    "stand together in the ranking"
)


def score_files(
    labels: str,
    predictions: str,
    out: pathlib.Path,
    *,
    split_list: str | None = None,
    category: str | None = None,
    sigmas: Sequence[float] | None = None,
    head_boxes: str | None = None,
    origin: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> str:
    """Scores 2D keypoints and writes metrics.json, metrics.csv and metrics.md.

    Arguments:
      labels, predictions: files of COCO's or MPII's form.
      out: folder to write to.
      split_list: text file, one image per line; only these are scored.
      category, sigmas: of COCO's labels, see `coco_keypoints.read`.
      head_boxes, origin: of MPII's labels, see `mpii_keypoints.read`.
      resamples, seed: of the bootstrap over images.

    Returns:
      the tables, for the screen.
    """
    of_coco = {"category": category, "sigmas": sigmas}
    of_mpii = {"head_boxes": head_boxes, "origin": origin}
    people = _read(pathlib.Path(labels), predictions, split_list, of_coco, of_mpii)
    result = score(people, resamples, seed)
    result |= {
        "inputs": {"labels": _fingerprint(labels), "predictions": _fingerprint(predictions)},
        "jaxcxr_version": jaxcxr.__version__,
    }
    rows = [{"group": "overall", "name": "", **tables.flat(result["overall"])}]
    for group in ("joint", "limb"):
        rows += [{"group": group, "name": name, **tables.flat(entry)}
                 for name, entry in result[f"per_{group}"].items()]
    blocks = _tables(result)
    remarks = [*people.remarks, *_remarks(result)]
    tables.write_result(
        out, result, rows,
        [_title(result), *("\n".join(tables.markdown(lines)) for lines in blocks), *remarks],
    )
    written = ", ".join(str(out / f"metrics.{end}") for end in ("json", "csv", "md"))
    text = "\n\n".join([_title(result), *("\n".join(tables.aligned(ls)) for ls in blocks)])
    return "\n".join([text, *remarks, f"Written: {written}"])


def _read(
    labels: pathlib.Path, predictions: str, split_list: str | None, of_coco: Mapping,
    of_mpii: Mapping,
) -> People:
    """The labels and predictions of files of either form, told apart by the labels."""
    coco = labels.suffix != ".mat" and _starts_with(labels, b"{")
    wrong, form = (of_mpii, "MPII") if coco else (of_coco, "COCO")
    for name, value in wrong.items():
        if value is not None:
            raise UserError(f"--{name.replace('_', '-')} is of {form}'s labels; leave it out")
    images = None if split_list is None else _list(pathlib.Path(split_list))
    if coco:
        return coco_keypoints.read(
            str(labels), predictions, of_coco["category"] or "", of_coco["sigmas"] or (), images
        )
    origin = 1 if of_mpii["origin"] is None else of_mpii["origin"]
    return mpii_keypoints.read(str(labels), predictions, of_mpii["head_boxes"], origin, images)


def _starts_with(path: pathlib.Path, first: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(first)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error


def _list(path: pathlib.Path) -> frozenset[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a list of images ({error}).") from error
    return frozenset(line.strip() for line in lines if line.strip())


def _fingerprint(name: str) -> dict[str, str]:
    path = pathlib.Path(name)
    with path.open("rb") as file:
        return {"name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def score(people: People, resamples: int = 1000, seed: int = 0) -> dict:
    """Metrics with intervals, in the form of metrics.json.

    Returns:
      `overall` (metric -> value, `METRIC_interval` -> [low, high]; of COCO also `AP` ... `ARl`),
      `per_joint` and `per_limb` alike, `counts`, `settings`. What is undefined is None: an interval
      where fewer than two images define the metric.
    """
    found = keypoint_metrics.outcomes(people)
    columns = list(_columns(people, found))
    drawn = keypoint_metrics.bootstrap(
        [(of.sums[:, parts].sum(1), of.counts[:, parts].sum(1)) for *_, of, parts in columns],
        people.images, resamples, seed,
    )
    result: dict = {"task": "keypoints", "form": people.form, "overall": {}, "per_joint": {},
                    "per_limb": {}}
    if people.matched is not None:
        values = keypoint_ap.summary(people.matched)
        ranges = keypoint_ap.bootstrap(people.matched, resamples, seed)
        for metric in keypoint_ap.METRICS:
            ends = intervals.percentile_interval(ranges[metric.name])
            result["overall"] |= metric.entry(values[metric.name], ends)
    for (group, name, metric, of, parts), values in zip(columns, drawn, strict=True):
        entry = result[group].setdefault(name, {}) if name else result[group]
        ends = intervals.percentile_interval(values)
        entry |= metric.entry(keypoint_metrics.share(of, parts), ends)
    result["counts"] = {**people.counts, "joints": int(people.visible.sum())}
    result["settings"] = {
        **people.settings, "resamples": resamples, "seed": seed, "level": intervals.LEVEL,
        "resampled": "images",
        "notes": ({"AP": _AP_NOTE} if people.matched is not None else {}) | {
            metric.name: metric.note for metric in found if metric.note
        },
    }
    return result


def _columns(
    people: People, found: Mapping[keypoint_metrics.KeypointMetric, keypoint_metrics.Outcomes]
):
    """Every share: its group, the name of its part, its metric, its outcomes and parts."""
    for metric, of in found.items():
        parts = list(range(of.sums.shape[1]))
        names = {"joint": people.joints, "limb": tuple(people.limbs)}.get(metric.parts, ())
        for part, name in enumerate(names):
            yield f"per_{metric.parts}", name, metric, of, [part]
        if metric.excluding:
            parts = [part for part in parts if part not in people.excluded]
        yield "overall", "", metric, of, parts


def _title(result: Mapping) -> str:
    counts = result["counts"]
    kind = {"coco": "COCO", "mpii": "MPII"}[result["form"]]
    return (f"{kind}: {counts['people']:,} people with {counts['joints']:,} joints in "
            f"{counts['images']:,} images")


def _tables(result: Mapping) -> list[list[tuple[str, ...]]]:
    """The whole, joint by joint, and limb by limb."""
    lines: list[tuple[str, ...]] = [("metric", "value", "95% interval")]
    overall = result["overall"]
    for metric in (*keypoint_ap.METRICS, *keypoint_metrics.METRICS):
        if metric.name in overall:
            lines.append((metric.title, metric.number(overall), _range(overall[metric.interval])))
    found = [lines]
    for group in ("joint", "limb"):
        entries = result[f"per_{group}"]
        shown = [metric for metric in keypoint_metrics.METRICS
                 if any(metric.name in entry for entry in entries.values())]
        if shown:
            found.append([
                (group, *(metric.title for metric in shown)),
                *((name, *(_cell(entry, metric) for metric in shown))
                  for name, entry in entries.items()),
            ])
    return found


def _cell(entry: Mapping, metric: keypoint_metrics.KeypointMetric) -> str:
    return f"{metric.number(entry)} {_range(entry[metric.interval])}"


def _range(interval: Sequence[float] | None) -> str:
    return "[n/a]" if interval is None else tables.span(interval)


def _remarks(result: Mapping) -> list[str]:
    remarks = []
    missed = result["counts"]["people_missed"]
    if result["form"] == "coco" and missed:
        remarks.append(
            f"{missed:,} people have no detection left for them: their joints count as wrong"
        )
    if result["counts"]["images"] < 2:
        remarks.append("No intervals: they take two images.")
    return remarks
