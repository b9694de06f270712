"""Writes the findings in a radiograph as a DICOM Structured Report (TID 1500), by highdicom.

Each class is a group with its probability and whether it is present or absent; the report of a
flagged image says why it is flagged, and nothing else. Findings have SNOMED CT codes where
pydicom's tables of the standard hold an equivalent, else codes of the private scheme `SCHEME`.
Patient, study and image are those of the DICOM file; what it lacks of the patient, such as the name
in a de-identified file, the report lacks too.
"""

import importlib.util
import pathlib
import re
import warnings
from collections.abc import Mapping
from typing import Any

import pydicom
from pydicom import valuerep
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from jaxcxr import __version__
from jaxcxr.errors import UserError

SCHEME = "99JAXCXR"
_PROBABILITY = Code("probability", SCHEME, "Probability of the finding, calibrated")
_THRESHOLD = Code("threshold", SCHEME, "Probability from which the finding is said to be there")
_STATED = Code("stated", SCHEME, "Finding at this threshold")
_FLAGGED = Code("flagged", SCHEME, "Why no findings are stated")
_SUITABILITY = Code("suitability", SCHEME, "Suitability of the image for the model")
# What a report refers to (PS3.3, C.7.2.1, C.7.3.1, C.12.1: type 1), and what may be empty (type 2).
_REFERRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_MAY_BE_EMPTY = {
    "PatientID": r".*", "PatientName": r".*", "AccessionNumber": r".*", "StudyID": r".*",
    "ReferringPhysicianName": r".*", "PatientBirthDate": r"\d{8}", "PatientSex": r"[MFO]",
    "StudyDate": r"\d{8}", "StudyTime": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?",
}
_CHECKED = ("AS", "DA", "TM", "DT")  # a wrong value is left out, a text is kept as it is
_UTF_8 = "ISO_IR 192"
_SNOMED = {
    "Cardiomegaly": "Cardiomegaly", "Effusion": "PleuralEffusion", "Edema": "PulmonaryEdema",
    "Pneumothorax": "Pneumothorax", "Mass": "Mass", "Nodule": "Nodule",
}


def check_installed() -> None:
    """Raises a UserError where highdicom is absent."""
    if importlib.util.find_spec("highdicom") is None:
        raise UserError("DICOM SR needs highdicom: pip install 'jaxcxr[sr]'")


def write(
    path: pathlib.Path,
    image: str | pathlib.Path,
    values: Mapping[str, tuple[float, float]],
    model: Mapping[str, str],
    flagged: str = "",
) -> None:
    """Writes the report of one radiograph.

    Arguments:
      path: file to write.
      image: DICOM file of the radiograph.
      values: class -> (probability, threshold).
      model: `name` and `digest` of the model.
      flagged: why the image is flagged, so that no findings are stated; "" if it is not.

    Raises:
      UserError: the header lacks what a report must refer to, or the report cannot be written.
    """
    from highdicom import UID, sr

    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            # Names of patients are kept as the file has them, even malformed.
            warnings.filterwarnings("ignore", module=r"highdicom|pydicom")
            dataset = _evidence(image)
            report = sr.ComprehensiveSR(
                evidence=[dataset], content=_content(sr, UID, dataset, values, model, flagged),
                specific_character_set=_UTF_8,
                series_instance_uid=UID(), series_number=1, sop_instance_uid=UID(),
                instance_number=1, manufacturer="jaxcxr", is_complete=True, is_final=False,
                is_verified=False,
            )
            report.save_as(path)
    except KeyError as error:
        raise UserError(f"{image}: no report can refer to an image of SOP Class {error}") from error
    except (AttributeError, ValueError, TypeError) as error:
        raise UserError(f"{image}: no report can refer to it ({error})") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from error


def _evidence(image: str | pathlib.Path) -> pydicom.Dataset:
    """Reads what a report says of patient, study and image, each tag that can be read."""
    header = pydicom.dcmread(image, stop_before_pixels=True, force=True)
    dataset = pydicom.Dataset()
    for tag in list(header.keys()):
        try:
            if not tag.is_private:
                element = dataset[tag] = header[tag]
                if element.VR in _CHECKED:
                    valuerep.validate_value(element.VR, element.value, pydicom.config.RAISE)
        except Exception:  # pydicom raises whatever the bytes lead to
            dataset.pop(tag, None)
    for keyword, form in _MAY_BE_EMPTY.items():
        text = str(dataset.get(keyword) or "").strip()
        setattr(dataset, keyword, text if re.fullmatch(form, text) else "")
    dataset.SpecificCharacterSet = _UTF_8
    for keyword in _REFERRED:
        kept = header.file_meta.get(f"MediaStorage{keyword}") if keyword.startswith("SOP") else None
        if not dataset.get(keyword) and kept:
            setattr(dataset, keyword, kept)
        if not dataset.get(keyword):
            number = pydicom.datadict.tag_for_keyword(keyword) or 0
            raise UserError(
                f"{image}: no report can refer to it without {keyword} "
                f"({number >> 16:04X},{number & 0xFFFF:04X})"
            )
    return dataset


def _content(sr: Any, uid: Any, dataset, values, model, flagged: str) -> Any:
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid(), name=f"jaxcxr {__version__}"[:64], manufacturer_name="jaxcxr",
            model_name=f"{model['name']} {model['digest'][:12]}",
        ),
    )
    algorithm = sr.AlgorithmIdentification(model["name"], model["digest"][:16])
    source = sr.SourceImageForMeasurementGroup(dataset.SOPClassUID, dataset.SOPInstanceUID)
    if flagged:
        values = {}
    groups = [
        sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid(), name), finding_type=_code(name),
            algorithm_id=algorithm, source_images=[source],
            measurements=[
                sr.Measurement(_PROBABILITY, round(probability, 6), codes.UCUM.NoUnits),
                sr.Measurement(_THRESHOLD, round(threshold, 6), codes.UCUM.NoUnits),
            ],
            qualitative_evaluations=[sr.QualitativeEvaluation(
                _STATED, codes.SCT.Present if probability >= threshold else codes.SCT.Absent,
            )],
        )
        for name, (probability, threshold) in values.items()
    ]
    if flagged:
        groups = [sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid(), "Suitability"),
            finding_type=_SUITABILITY, algorithm_id=algorithm, source_images=[source],
            qualitative_evaluations=[sr.QualitativeEvaluation(
                _FLAGGED, Code("reason", SCHEME, flagged[:64]),
            )],
        )]
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=Code("radiograph", SCHEME, "Frontal chest radiograph"),
        imaging_measurements=groups, title=codes.DCM.ImagingMeasurementReport,
    )


def _code(name: str) -> Code:
    known = _SNOMED.get(name)
    if known:
        return getattr(codes.SCT, known)
    return Code(name[:16], SCHEME, name.replace("_", " ")[:64])
