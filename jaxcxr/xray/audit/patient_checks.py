"""Checks patients: in two splits, of two sexes, of impossible ages, unknown."""

import collections
from collections.abc import Iterator

import numpy as np

from jaxcxr.xray.audit.audit_checks import LEAK, WARNING, finding, shares, side
from jaxcxr.xray.audit.audited_sets import Everything

# Years between two films of one patient; the published data sets span at most 23.
MOST_YEARS = 30


def in_two_splits(everything: Everything) -> Iterator[dict]:
    """Finds patients with images in two splits, and images without a patient."""
    ids = everything.rows.patient_id
    for first, second, known in everything.across():
        masks = everything.patients.shared(first, second)
        if masks[0].any():
            sides = [side(part, mask) for part, mask in zip((first, second), masks, strict=True)]
            names = [np.unique(ids[part.rows][mask]).tolist()
                     for part, mask in zip((first, second), masks, strict=True)]
            kind = "patient_in_two_splits" if known else "patient_in_unsplit"
            text = f"{len(names[0]):,} patients are in both, with {shares(sides)}"
            spelled = [name for name in names[0] if name not in set(names[1])]
            if spelled:
                text += f"; {len(spelled):,} of them are written differently there"
            yield finding(kind, LEAK if known else WARNING, sides, len(names[0]), text, names[0])
    for part in everything.parts:
        unknown = ids[part.rows] == ""
        if unknown.any():
            one = side(part, unknown)
            text = f"the patient of {one['images']:,} of {one['of']:,} images is unknown"
            yield finding("no_patients", WARNING, [one], unknown.sum(), text, ())


def contradictions(everything: Everything) -> Iterator[dict]:
    """Finds patients of two sexes, ages that nobody has, and ages too far apart."""
    rows = everything.rows
    sexes: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    ages: dict[str, list[int]] = collections.defaultdict(list)
    names = rows.patient_id.tolist()
    for name, sex, age in zip(names, rows.sex.tolist(), rows.age.tolist(), strict=True):
        if name and sex:
            sexes[name][sex] += 1
        if name and age >= 0:
            ages[name].append(age)
    both = {name: counts for name, counts in sexes.items() if len(counts) > 1}
    if both:
        items = [f"{name} ({', '.join(f'{sex} {n}' for sex, n in sorted(counts.items()))})"
                 for name, counts in both.items()]
        yield _of_rows(everything, np.isin(rows.patient_id, list(both)), "two_sexes", len(both),
                       f"{len(both):,} patients have two sexes", items)
    strange = everything.ages != ""
    if strange.any():
        counts = collections.Counter(everything.ages[strange].tolist())
        told = ", ".join(f"{text!r} {n:,}" for text, n in counts.most_common(5))
        more = ", ..." if len(counts) > 5 else ""
        items = [
            f"{name or image}: {text!r}" for name, image, text in zip(
                rows.patient_id[strange].tolist(), rows.image_id[strange].tolist(),
                everything.ages[strange].tolist(), strict=True)
        ]
        yield _of_rows(everything, strange, "impossible_age", int(strange.sum()),
                       f"{strange.sum():,} images have an age that nobody has: {told}{more}", items)
    apart = {name: (min(found), max(found)) for name, found in ages.items()
             if max(found) - min(found) > MOST_YEARS}
    if apart:
        items = [f"{name} ({least} to {most} years)" for name, (least, most) in apart.items()]
        yield _of_rows(everything, np.isin(rows.patient_id, list(apart)), "ages_apart", len(apart),
                       f"{len(apart):,} patients have ages more than {MOST_YEARS} years apart",
                       items)


def _of_rows(everything: Everything, chosen, kind: str, count: int, text: str, items) -> dict:
    sides = [side(part, chosen[part.rows]) for part in everything.parts]
    return finding(kind, WARNING, [one for one in sides if one["images"]], count, text, items)
