"""Writes the findings in a radiograph as a DICOM Structured Report (TID 1500), by highdicom.

Each class is a group with its probability and whether it is present or absent. Findings have
SNOMED CT codes where pydicom's tables of the standard hold an equivalent, else codes of the private
scheme `SCHEME`. Patient, study and image are those of the DICOM file.
"""

import importlib.util
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import pydicom
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from jaxcxr import __version__
from jaxcxr.errors import UserError

SCHEME = "99JAXCXR"
_PROBABILITY = Code("probability", SCHEME, "Probability of the finding, calibrated")
_THRESHOLD = Code("threshold", SCHEME, "Probability from which the finding is said to be there")
_STATED = Code("stated", SCHEME, "Finding at this threshold")
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
) -> None:
    """Writes the report of one radiograph.

    Arguments:
      path: file to write.
      image: DICOM file of the radiograph.
      values: class -> (probability, threshold).
      model: `name` and `digest` of the model.

    Raises:
      UserError: the header lacks what a report must refer to, or the report cannot be written.
    """
    from highdicom import UID, sr

    dataset = pydicom.dcmread(image, stop_before_pixels=True, force=True)
    try:
        with warnings.catch_warnings():
            # Names of patients are kept as the file has them, even malformed.
            warnings.filterwarnings("ignore", module=r"highdicom|pydicom")
            report = sr.ComprehensiveSR(
                evidence=[dataset], content=_content(sr, UID, dataset, values, model),
                series_instance_uid=UID(), series_number=1, sop_instance_uid=UID(),
                instance_number=1, manufacturer="jaxcxr", is_complete=True, is_final=False,
                is_verified=False,
            )
            report.save_as(path)
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{image}: no report can refer to it ({error})") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from error


def _content(sr: Any, uid: Any, dataset, values, model) -> Any:
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid(), name=f"jaxcxr {__version__}"[:64], manufacturer_name="jaxcxr",
            model_name=f"{model['name']} {model['digest'][:12]}",
        ),
    )
    algorithm = sr.AlgorithmIdentification(model["name"], model["digest"][:16])
    source = sr.SourceImageForMeasurementGroup(dataset.SOPClassUID, dataset.SOPInstanceUID)
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
