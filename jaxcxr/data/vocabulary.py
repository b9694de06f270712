"""Maps the names of findings, sexes and views between data sets, and names classes of schemas.

Sources of the table: ChestX-ray14 (Wang et al., CVPR 2017), CheXpert (Irvin et al., AAAI 2019,
whose labeler read MIMIC-CXR-JPG too), VinDr-CXR (Nguyen et al., Scientific Data 2022), PadChest
(Bustos et al., Medical Image Analysis 2020, whose tree of findings tells which are parts of
another), and the MeSH headings of Open-I (Demner-Fushman et al., JAMIA 2016). Only names for the
same finding, and parts of a finding, are joined: that a nodule is an opacity does not make a reader
of nodules a reader of opacities.
"""

import re
from collections.abc import Iterable

from jaxcxr.data.text_files import column_key, fold

# Thesis table 4.1, in its order: the 14 findings of ChestX-ray14 and COVID-19.
FINDINGS = (
    "Cardiomegaly",
    "Emphysema",
    "Effusion",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Atelectasis",
    "Pneumothorax",
    "Pleural_Thickening",
    "Pneumonia",
    "Fibrosis",
    "Edema",
    "Consolidation",
    "COVID-19",
)

POSITIVE, NEGATIVE, UNKNOWN = 1, 0, -1
UNCERTAIN = -2  # a reader could not tell; each source's option makes another label of it

# What CheXpert's labeler reads for, beside No Finding, which is the absence of these.
CHEXPERT = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
NO_FINDING = "No Finding"

# Name in the union -> other names of the same finding.
SAME = {
    "Cardiomegaly": (),
    "Emphysema": ("Pulmonary Emphysema",),
    "Effusion": ("Pleural Effusion", "Pleural Effusions"),
    "Hernia": ("hiatal hernia", "Hernia, Hiatal"),
    "Infiltration": ("Infiltrate", "infiltrates"),
    "Mass": (),
    "Nodule": (),
    "Atelectasis": ("Pulmonary Atelectasis",),
    "Pneumothorax": (),
    "Pleural_Thickening": ("Pleural Thickening",),
    "Pneumonia": (),
    "Fibrosis": ("Pulmonary Fibrosis",),
    "Edema": ("Pulmonary Edema",),
    "Consolidation": (),
    "COVID-19": (),
    "Enlarged Cardiomediastinum": ("mediastinal enlargement",),
    "Lung Opacity": ("Airspace opacity",),
    "Lung Lesion": ("Nodule/Mass", "Nodule or mass"),
    "Pleural Other": (),
    "Fracture": ("Fractures, Bone",),
    "Support Devices": ("Medical Device",),
    "Tuberculosis": (),
    "Calcified Granuloma": (),
    "Aortic Enlargement": (),
    "Scoliosis": (),
    "COPD": ("COPD signs",),
}
# Name in the union -> names of its parts: who has one has it, who lacks one may have another.
PARTS = {
    "Effusion": ("loculated pleural effusion", "loculated fissural effusion"),
    "Infiltration": (
        "interstitial pattern", "ground glass pattern", "reticular interstitial pattern",
        "reticulonodular interstitial pattern", "miliary opacities", "alveolar pattern",
    ),
    "Mass": ("pulmonary mass",),
    "Nodule": ("multiple nodules",),
    "Atelectasis": (
        "total atelectasis", "lobar atelectasis", "segmental atelectasis", "laminar atelectasis",
        "round atelectasis", "atelectasis basal",
    ),
    "Pneumothorax": ("hydropneumothorax",),
    "Pleural_Thickening": (
        "apical pleural thickening", "calcified pleural thickening", "calcified pleural plaques",
    ),
    "Pneumonia": ("atypical pneumonia",),
    "Enlarged Cardiomediastinum": ("superior mediastinal enlargement",),
    "Fracture": (
        "rib fracture", "clavicle fracture", "humeral fracture", "vertebral fracture",
        "callus rib fracture",
    ),
    "Support Devices": (
        "Catheters, Indwelling", "Implanted Medical Device", "nsg tube", "endotracheal tube",
        "tracheostomy tube", "chest drain tube", "catheter", "central venous catheter",
        "central venous catheter via subclavian vein", "central venous catheter via jugular vein",
        "reservoir central venous catheter", "electrical device", "dual chamber device",
        "single chamber device", "pacemaker", "dai",
    ),
    "Tuberculosis": ("tuberculosis sequelae",),
}  # fmt: skip

SCHEMAS = {
    "chestxray14": tuple(name for name in FINDINGS if name != "COVID-19"),
    "cxr15": FINDINGS,
    "chexpert": CHEXPERT,
    "union": tuple(SAME),
}
_NO_FINDING = {
    "nofinding", "nofindings", "normal", "healthy", "health", "none", "negative", "noabnormality",
}  # fmt: skip
_SEXES = {
    **dict.fromkeys(("m", "male", "man", "boy"), "M"),
    **dict.fromkeys(("f", "female", "woman", "girl", "w"), "F"),
}
_VIEWS = {
    **dict.fromkeys(("pa", "postero-anterior", "posteroanterior"), "PA"),
    **dict.fromkeys(("ap", "antero-posterior", "anteroposterior"), "AP"),
    **dict.fromkeys(
        ("l", "ll", "rl", "lat", "lateral", "left lateral", "right lateral", "xtable lateral"), "L"
    ),
}
_WHOLE = {fold(name): union for union, others in SAME.items() for name in (union, *others)}
_PART = {fold(name): union for union, parts in PARTS.items() for name in parts}


def union_name(name: str, parts: bool = True) -> str | None:
    """Returns the union's name of a finding, whatever its data set calls it; None if it has none.

    Arguments:
      name: case, spaces and underscores do not matter.
      parts: a part of a finding has its name too.
    """
    whole = _WHOLE.get(fold(name))
    return whole or (_PART.get(fold(name)) if parts else None)


def parts_of(wanted: str, names: Iterable[str]) -> list[str]:
    """Returns those of `names` that mean a finding of the union or of a schema, or a part of it."""
    whole = union_name(wanted)
    return [name for name in names if union_name(name) == whole]


def combined(labels: Iterable[int]) -> int:
    """Labels a finding by its parts: present if any is, absent if all are, uncertain if any is."""
    found = set(labels)
    if POSITIVE in found:
        return POSITIVE
    if UNCERTAIN in found:
        return UNCERTAIN
    return NEGATIVE if found == {NEGATIVE} else UNKNOWN


def sex_of(text: str) -> str:
    """Reads a sex as "M", "F" or, for all else, ""."""
    return _SEXES.get(text.strip().casefold(), "")


def view_of(text: str, qualified: bool = True) -> str:
    """Reads a view as "PA", "AP", "L" or, for all else, "".

    Arguments:
      qualified: `AP supine` is "AP"; else only the bare word is.
    """
    word = text.strip().casefold()
    first = re.split(r"[\s_/,]", word)[0] if qualified else ""
    return _VIEWS.get(word) or _VIEWS.get(first, "")


def no_finding(name: str) -> bool:
    """Tells whether a name such as `Normal` or `No Finding` says that nothing was found."""
    return column_key(name) in _NO_FINDING
