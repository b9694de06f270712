"""Prepares MPI-INF-3DHP (Mehta et al. 2017) from npz files of P-STMO or D3DP, with true keypoints.

    jaxcxr prepare mpi_inf_3dhp --raw DIR

DIR holds a training and a test file of one kind, which is told by their content. D3DP's (`annot3`)
belong under the protocol mpi-inf-3dhp, P-STMO's (`univ_annot3`, poses scaled to one height) under
mpi-inf-3dhp-univ. Invalid test frames are left out; the runs between them are sequences "test
chunk0", "test chunk1", ...

Training sequences have 25 or 50 frames per second. By default all are resampled to 25; with
`--fps 0` each keeps its own, so windows of equal frames last half as long in some.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from jaxcxr.errors import UserError
from jaxcxr.pose.formats import mpi_inf_3dhp_files
from jaxcxr.pose.formats.mpi_inf_3dhp_files import ANNOTATIONS, File, View
from jaxcxr.pose.keypoints import frame_rates
from jaxcxr.pose.sources import subjects, virtual
from jaxcxr.pose.sources.pose_set import PoseSet, pose_features

FPS = 25.0
_RUN = {"variant": False}  # an option that does not change what is prepared


@dataclasses.dataclass(eq=False)
class MpiInf3dhpConfig(subjects.SubjectConfig):
    """Options of MPI-INF-3DHP; those that change the records name the variant.

    Attributes:
      annotations: "annot3" (poses as recorded, D3DP's files) or "univ_annot3" (scaled to one
        height, P-STMO's files).
      train_subjects: by default the published eight without the validation subject.
      test_subjects: TS1 to TS6; the last two are outdoors.
      fps: frames per second of the prepared sequences, 0 for each
        sequence's own, 25 or 50.
      raw: folder of the two files.
    """

    name: str = ""
    annotations: str = "annot3"
    train_subjects: tuple[str, ...] = mpi_inf_3dhp_files.TRAIN[:7]
    validation_subjects: tuple[str, ...] = ("S8",)
    test_subjects: tuple[str, ...] = mpi_inf_3dhp_files.TEST
    fps: float = FPS
    raw: str = dataclasses.field(default="", metadata=_RUN)

    def __post_init__(self):
        known = (*mpi_inf_3dhp_files.TRAIN, *mpi_inf_3dhp_files.TEST)
        told = self.settle("mpi_inf_3dhp", known, native=True)
        if self.annotations not in ANNOTATIONS:
            raise UserError(
                f"mpi_inf_3dhp: annotations is {self.annotations!r}; allowed: "
                f"{', '.join(ANNOTATIONS)}."
            )
        self.name = self.name or f"{self.annotations}_{told}"


class MpiInf3dhp(PoseSet):
    """MPI-INF-3DHP in Human3.6M's order; records of `pose_features`."""

    name = "mpi_inf_3dhp"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIG_CLASS = MpiInf3dhpConfig
    builder_config_class = MpiInf3dhpConfig

    def _info(self) -> tfds.core.DatasetInfo:
        rate = self.builder_config.fps
        return tfds.core.DatasetInfo(
            builder=self,
            description="MPI-INF-3DHP: 17 joints in the camera frame and their true keypoints, "
            + (f"{rate:g} frames per second." if rate else "25 or 50 frames per second."),
            features=pose_features(),
            homepage="https://vcai.mpi-inf.mpg.de/3dhp-dataset/",
            citation="D. Mehta, H. Rhodin, D. Casas, P. Fua, O. Sotnychenko, W. Xu, C. Theobalt: "
            "Monocular 3D Human Pose Estimation In The Wild Using Improved CNN Supervision. 3DV "
            "2017.",
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        views = [view for file in _files(config) for view in file.views]
        splits: dict[str, list] = {split: [] for split in subjects.SPLITS}
        for view in views:
            split = config.split_of(view.subject, view.take)
            if split:
                splits[split].append(view)
        subjects.check_splits("mpi_inf_3dhp", splits, {view.subject for view in views})
        return {split: self._generate_examples(found) for split, found in splits.items()}

    def _generate_examples(self, views: list[View]) -> Iterator[tuple[str, dict]]:
        for view in views:
            for take, frames in _runs(view):
                name = f"{view.subject}_{take.replace(' ', '_')}_{view.camera}"
                record = {
                    "sequence_id": name,
                    "subject": view.subject,
                    "action": view.take,
                    "camera": view.camera,
                    "fps": view.fps,
                    "keypoints": view.keypoints[frames],
                    "confidence": view.confidence[frames],
                    "joints": view.joints[frames],
                    "image_size": np.array(view.size, np.int32),
                    "intrinsics": view.camera_vector,
                }
                yield name, frame_rates.resample(record, self.builder_config.fps)


def _runs(view: View) -> Iterator[tuple[str, slice]]:
    """Yields the names and frames of the runs of valid frames."""
    if view.valid.all():
        yield view.take, slice(None)
        return
    for number, (start, end) in enumerate(virtual.runs(view.valid)):
        yield f"{view.take} chunk{number}", slice(start, end)


def _files(config: MpiInf3dhpConfig) -> list[File]:
    """Finds the training and the test file of the kind wanted."""
    if not config.raw:
        raise UserError(
            "mpi_inf_3dhp: where is the data? Give --raw DIR with a training and a test file."
        )
    folder = pathlib.Path(config.raw).expanduser()
    paths = sorted(folder.glob("*.npz")) if folder.is_dir() else [folder]
    files = [mpi_inf_3dhp_files.read(path) for path in paths if mpi_inf_3dhp_files.may_be(path)]
    chosen = []
    for part in ("train", "test"):
        found = [f for f in files if (f.part, f.annotations) == (part, config.annotations)]
        if len(found) != 1:
            there = "; ".join(f"{f.path.name}: {f.part}, {f.annotations}" for f in files)
            raise UserError(
                f"mpi_inf_3dhp: {len(found) or 'no'} {part} file of {config.annotations} in "
                f"{folder}, expected one; files there: {there or 'none'}. Choose with "
                "--annotations."
            )
        chosen += found
    return chosen
