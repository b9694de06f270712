"""Reads Open-I, the Indiana University collection: 7,470 images of 3,955 reports.

Demner-Fushman et al., "Preparing a collection of radiology examinations for distribution and
retrieval", JAMIA 2016. Coders described each report by MeSH headings with qualifiers, such as
`Opacity/lung/base/left`; "normal" if it has no finding, so what is not named is absent. "No
Indexing" says nothing, nor does a note on the film's quality alone, and their images are left out.
Each report is of another patient. No split is published.

Two forms: the NLM's reports, an XML file each, with images called CXR1_1_IM-0001-4001; and Kaggle's
indiana_reports.csv and indiana_projections.csv, with images called 1_IM-0001-4001.dcm.png. Only the
latter table tells frontal from lateral films; it serves the XML form too.
"""

import collections
import pathlib
import re
import xml.etree.ElementTree as ElementTree

from jaxcxr.data.label_tables import NEGATIVE, POSITIVE
from jaxcxr.data.text_files import csv_rows, fold
from jaxcxr.data.vocabulary import NO_FINDING
from jaxcxr.errors import UserError
from jaxcxr.xray.sources import builder
from jaxcxr.xray.sources.published import Film, PublishedBuilder, PublishedConfig
from jaxcxr.xray.sources.published_files import Files

NAME = "open_i"

# Heading, or heading with the qualifier that makes it one of the findings of the chest.
_FINDINGS = {
    "Cardiomegaly": ("Cardiomegaly", ""), "Pulmonary Atelectasis": ("Pulmonary Atelectasis", ""),
    "Pleural Effusion": ("Pleural Effusion", ""), "Pneumothorax": ("Pneumothorax", ""),
    "Pulmonary Emphysema": ("Pulmonary Emphysema", ""), "Emphysema": ("Emphysema", ""),
    "Hernia, Hiatal": ("Hernia, Hiatal", ""), "Infiltrate": ("Infiltrate", ""),
    "Mass": ("Mass", ""), "Nodule": ("Nodule", ""), "Pneumonia": ("Pneumonia", ""),
    "Pulmonary Fibrosis": ("Pulmonary Fibrosis", ""), "Pulmonary Edema": ("Pulmonary Edema", ""),
    "Consolidation": ("Consolidation", ""), "Lung Opacity": ("Opacity", "lung"),
    "Pleural Thickening": ("Thickening", "pleura"), "Fractures, Bone": ("Fractures, Bone", ""),
    "Medical Device": ("Medical Device", ""),
    "Catheters, Indwelling": ("Catheters, Indwelling", ""),
    "Implanted Medical Device": ("Implanted Medical Device", ""),
    "Calcified Granuloma": ("Calcified Granuloma", ""), "Scoliosis": ("Scoliosis", ""),
    "Granulomatous Disease": ("Granulomatous Disease", ""),
    "Airspace Disease": ("Airspace Disease", ""),
    "Pulmonary Congestion": ("Pulmonary Congestion", ""),
    "Atherosclerosis": ("Atherosclerosis", ""), "Spondylosis": ("Spondylosis", ""),
    "Tuberculosis": ("Tuberculosis", ""),
}  # fmt: skip
_SILENT = {fold("No Indexing"), fold("Technical Quality of Image Unsatisfactory ")}
_REPORTS = ("indiana_reports.csv", "*reports*.csv")
_PROJECTIONS = ("indiana_projections.csv", "*projections*.csv")
_CXR = re.compile(r"(?:CXR)?(\d+)_(?:\1_)?(IM-.+)", re.IGNORECASE)
_ENDING = re.compile(r"(?:\.(?:dcm|png|jpe?g))+$", re.IGNORECASE)


class OpenI(PublishedBuilder):
    """Split by a hash of the report, which stands for the patient."""

    name = NAME
    builder_config_class = PublishedConfig

    classes = own = tuple(_FINDINGS)
    description = "Indiana University chest X-rays of Open-I, split by a hash of the report."
    homepage = "https://openi.nlm.nih.gov/"
    citation = "Demner-Fushman et al., JAMIA 23(2), 2016."
    raw_content = "indiana_reports.csv and indiana_projections.csv, or the XML reports; the images"

    def films(self, raw: pathlib.Path, files: Files) -> tuple[list[Film], list[str]]:
        """Reads the reports and the table of projections."""
        table, projections = files.table(_REPORTS), files.table(_PROJECTIONS)
        told = _projections(projections) if projections else {}
        if table:
            reports = csv_rows(table, ("uid", "MeSH"))
            headings = {cells["uid"]: cells["MeSH"] for _, cells in reports}
            if not projections:
                raise UserError(f"{NAME}: {table} needs {_PROJECTIONS[0]}, which names the images")
            images = {name: uid for name, (uid, _) in told.items()}
        else:
            headings, images = _xml_reports(files, raw)
        names = {key: frontal for name, (_, frontal) in told.items() if (key := image_key(name))}
        films, silent, unread = [], [], []
        strange: collections.Counter[str] = collections.Counter()
        for image, uid in images.items():
            if uid not in headings:
                unread.append(image)
                continue
            labels, others = labels_of(headings[uid])
            if not labels:
                silent.append(image)
                continue
            strange.update(others)
            frontal = names.get(image_key(image) or ("", ""))
            films.append(Film(
                image_id=image, patient_id=f"{NAME}/{uid}", path=image, split="", labels=labels,
                view="L" if frontal is False else "", frontal=frontal,
            ))  # fmt: skip
        if films and not told and self.builder_config.views == "frontal":
            raise UserError(
                f"{NAME}: the reports do not tell frontal from lateral films; put "
                f"{_PROJECTIONS[0]} into {raw}, or take all by --views all"
            )
        rare = [f"{name} {count}" for name, count in strange.most_common()]
        return films, [
            *builder.note(silent, "images are left out, as their report is not indexed"),
            *builder.note(unread, "images have no report and are left out"),
            *builder.note(rare, "headings are no class here"),
        ]


def labels_of(text: str) -> tuple[dict[str, int], list[str]]:
    """Reads MeSH headings joined by `;`, each with its qualifiers behind `/`.

    Returns:
      Label by finding, empty if the headings say nothing, and headings that are no finding here.
    """
    headings = [
        [fold(part) for part in heading.split("/")]
        for heading in text.split(";") if heading.strip()
    ]
    telling = [heading for heading in headings if heading[0] not in {*_SILENT, "", "nan"}]
    if not telling:
        return {}, []
    labels = dict.fromkeys(_FINDINGS, NEGATIVE)
    others = []
    for heading in telling:
        found = [
            name for name, (word, part) in _FINDINGS.items()
            if fold(word) == heading[0] and (not part or fold(part) in heading[1:])
        ]
        labels |= dict.fromkeys(found, POSITIVE)
        if not found and heading[0] != "normal":
            others.append(heading[0])
    normal = any(heading[0] == "normal" for heading in telling)
    return labels | {NO_FINDING: POSITIVE if normal else NEGATIVE}, others


def image_key(name: str) -> tuple[str, str] | None:
    """Returns report and image of CXR1_1_IM-0001-4001.png and of 1_IM-0001-4001.dcm.png alike."""
    match = _CXR.fullmatch(_ENDING.sub("", name))
    return (match[1], match[2].upper()) if match else None


def _projections(path: pathlib.Path) -> dict[str, tuple[str, bool | None]]:
    """Returns report, and whether the film is frontal, by name of the image."""
    told: dict[str, tuple[str, bool | None]] = {}
    for where, cells in csv_rows(path, ("uid", "filename", "projection")):
        word, name = cells["projection"].casefold(), cells["filename"]
        if name in told:
            raise UserError(f"{where}: a second row for {name}; remove one")
        told[name] = cells["uid"], {"frontal": True, "lateral": False}.get(word)
    return told


def _xml_reports(files: Files, raw: pathlib.Path) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the major headings by report, and the report by image."""
    headings: dict[str, str] = {}
    images: dict[str, str] = {}
    for path in files.paths:
        if path.suffix.casefold() != ".xml":
            continue
        try:
            root = ElementTree.fromstring((files.root / path).read_bytes())
        except (ElementTree.ParseError, LookupError, ValueError) as error:
            raise UserError(f"{files.root / path}: not readable as XML: {error}") from error
        found = root.find(".//uId")
        if found is None or not found.get("id"):
            continue
        uid = found.get("id", "").upper().removeprefix("CXR")
        headings[uid] = ";".join(entry.text or "" for entry in root.iterfind(".//MeSH/major"))
        images |= {
            name: uid for image in root.iterfind(".//parentImage") if (name := image.get("id", ""))
        }
    if not headings:
        raise UserError(
            f"{NAME}: neither {_REPORTS[0]} nor XML reports of Open-I in {raw} or below it"
        )
    return headings, images
