"""Protocols of pose evaluation as objects: test set, input, and way of counting.

Numbers of different protocols differ by more than methods do (the same weights: 27 and 38 mm), so
a result carries the name of its protocol, and `same` refuses to put two into one table.

Models are selected on `validation`, people held out of the training subjects, never on the test.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from jaxcxr.errors import UserError, nearest
from jaxcxr.pose.geometry import joint_sets
from jaxcxr.pose.geometry.skeletons import HUMAN36M

ROOT_RULES = ("none", "subtract", "zero")
AVERAGES = ("frame", "action", "subject-action")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a number comes about.

    Attributes:
      train, test: subjects; validation: those of `train` held out while a model is selected, empty
        where the data set has its own way of holding out.
      keypoints: the 2D input of the lifter.
      joints: names, in the order of the arrays; parents: index of each one's parent, -1 the root's.
      unit: "m" or "mm", of the data set's files; errors are always in millimetres.
      root: joint that the true poses are relative to.
      root_rule: of the predicted root: "none", "subtract" it from the whole pose, or
        set it to "zero" alone.
      average: "frame": over all frames; "action": of each action, then over actions;
        "subject-action": of each action of each subject, then over these.
      fps: frames per second of the data, none where it varies.
      actions: first words of the actions that are scored; empty: all.
      train_actions: those that are trained on, where subjects of the test are trained on too; none
        of them is scored.
      joint_set: of `jaxcxr.pose.geometry.joint_sets`, whose points `joints` are in its order.
      scored: joints of 3DPCK and its area under the curve; empty: all. MPJPE is over all.
      inclusive: whether a joint at just the threshold of 3DPCK is correct.
      left_out: "subject/action" of sequences that do not count.
      space: coordinates of the poses.
      notes: for readers who compare.
    """

    name: str
    data_set: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    keypoints: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    unit: str
    root: int = 0
    root_rule: str = "none"
    average: str = "action"
    fps: float | None = 50.0
    actions: tuple[str, ...] = ()
    train_actions: tuple[str, ...] = ()
    joint_set: str = "human36m"
    scored: tuple[int, ...] = ()
    inclusive: bool = True
    left_out: tuple[str, ...] = ()
    space: str = "camera, metric"
    notes: str = ""
    source: str = ""

    def __post_init__(self):
        if self.root_rule not in ROOT_RULES or self.average not in AVERAGES:
            raise ValueError(f"protocol {self.name}: {self.root_rule!r}, {self.average!r}")
        again = set(self.test) & set(self.train)
        if self.train_actions and self.actions:
            again = set(self.actions) & set(self.train_actions)
        if again or not set(self.validation) <= set(self.train):
            raise ValueError(f"protocol {self.name}: a test subject is used before the test")
        lengths = {len(self.parents), len(joint_sets.joint_set(self.joint_set).joints)}
        if lengths != {len(self.joints)} or self.unit not in ("m", "mm"):
            raise ValueError(f"protocol {self.name}: joints, parents or unit do not fit")


_HUMAN36M_ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases",
    "Sitting", "SittingDown", "Smoking", "Waiting", "WalkDog", "WalkTogether", "Walking",
)
_HUMANEVA_JOINTS = (
    "pelvis", "thorax", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder",
    "right_elbow", "right_wrist", "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee",
    "right_ankle", "head",
)
_3DHP_JOINTS = (
    "head_top", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder",
    "left_elbow", "left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee",
    "left_ankle", "pelvis", "spine", "head",
)

_VP3D = Protocol(
    name="vp3d-cpn", data_set="human36m", train=("S1", "S5", "S6", "S7", "S8"),
    validation=("S8",), test=("S9", "S11"),
    keypoints="cascaded pyramid network, fine-tuned on Human3.6M (cpn_ft_h36m_dbb)",
    joints=HUMAN36M.joints, parents=HUMAN36M.parents, unit="m", actions=_HUMAN36M_ACTIONS,
    notes="All frames of all four cameras; the predicted root is compared with zero like the other "
    "16 joints.",
    source="Pavllo et al., VideoPose3D, 2019",
)
_PHANTOM = dataclasses.replace(
    _VP3D, name="motion-phantom", data_set="motion_phantom", train=("S1", "S2", "S3", "S4", "S5"),
    validation=("S5",), test=("S6", "S7"), keypoints="projected, with the noise prepared",
    actions=(), root_rule="none", notes="Synthetic movements; says nothing about real people.",
    source="jaxcxr",
)
_MOTIONBERT = dataclasses.replace(
    _VP3D, name="motionbert-sh",
    keypoints="stacked hourglass, fine-tuned on Human3.6M, with confidence", unit="mm",
    root_rule="subtract", left_out=("S9/Greeting 2", "S9/SittingDown 2", "S9/Waiting 1"),
    space="image, times each frame's true scale",
    notes="The true scale of each frame enters the prediction; three takes of S9, and the last "
    "frames of a clip that fill no window of 243, are left out.",
    source="Zhu et al., MotionBERT, 2023",
)
_3DHP = Protocol(
    name="mpi-inf-3dhp", data_set="mpi_inf_3dhp",
    train=("S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8"), validation=("S8",),
    test=("TS1", "TS2", "TS3", "TS4", "TS5", "TS6"), keypoints="true 2D positions",
    joints=_3DHP_JOINTS, parents=(16, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1),
    unit="mm", root=14, root_rule="subtract", average="frame", fps=None,
    joint_set="mpi_inf_3dhp", scored=tuple(range(14)),
    inclusive=False,
    notes="Against annot3, the metric poses, as D3DP prepared them. Over all valid frames; D3DP's "
    "own numbers are means over the six sequences, which per_subject has. 3DPCK and its area are "
    "over 14 joints with <, so that a perfect prediction has an area of 30/31.",
    source="Mehta et al., MPI-INF-3DHP, 2017",
)

# CMU's subjects whom SURREAL keeps for its test (001_test.txt of its code).
_SURREAL_TEST = (
    3, 6, 7, 9, 10, 13, 24, 27, 30, 31, 34, 36, 39, 40, 60, 61, 70, 75, 81, 104, 107, 108, 115,
    118, 120, 122, 127, 128, 133, 138,
)

_ALL = (
    _VP3D,
    dataclasses.replace(_VP3D, name="vp3d-gt", keypoints="true 2D positions (gt)"),
    dataclasses.replace(
        _VP3D, name="vp3d-detectron",
        keypoints="Detectron Mask R-CNN, fine-tuned on Human3.6M (detectron_ft_h36m)",
    ),
    _MOTIONBERT,
    dataclasses.replace(
        _MOTIONBERT, name="motionbert-cpn",
        keypoints="cascaded pyramid network, fine-tuned on Human3.6M",
    ),
    dataclasses.replace(
        _MOTIONBERT, name="motionbert-gt", keypoints="true 2D positions",
        notes=f"The input holds x and y of the answer. {_MOTIONBERT.notes}",
    ),
    dataclasses.replace(
        _VP3D, name="cmu-subjects", data_set="cmu_mocap", train=("01", "02"), validation=(),
        test=("03", "11"), keypoints="projected into four virtual cameras", average="frame",
        actions=(),
        notes="Validation: 15 % of the training subjects' clips. The joints are in the order of "
        "Human3.6M, not where its markers put them: never pool with it.",
        source="mocap.cs.cmu.edu",
    ),
    _PHANTOM,
    Protocol(
        name="humaneva", data_set="humaneva", train=("Train/S1", "Train/S2", "Train/S3"),
        validation=("Train/S2",), test=("Validate/S1", "Validate/S2", "Validate/S3"),
        keypoints="Detectron Mask R-CNN of COCO (detectron_pt_coco)", joints=_HUMANEVA_JOINTS,
        parents=(-1, 0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 0, 11, 12, 1), unit="m",
        joint_set="humaneva15", average="subject-action", fps=60.0,
        actions=("Walking", "Jog", "Box"),
        notes="One model for the three actions. The test is on other takes of the people trained "
        "on.",
        source="Pavllo et al., VideoPose3D, 2019",
    ),
    dataclasses.replace(
        _VP3D, name="totalcapture", data_set="totalcapture", train=("S1", "S2", "S3"),
        validation=(), test=("S1", "S2", "S3", "S4", "S5"),
        keypoints="projected into the eight cameras", fps=60.0,
        actions=("walking2", "freestyle3", "acting3"),
        train_actions=("rom1", "rom2", "rom3", "walking1", "walking3", "freestyle1", "freestyle2",
                       "acting1", "acting2"),
        notes="S1 to S3 are trained on in other takes, S4 and S5 never: see the subjects apart. "
        "Validation: the take freestyle2. Works differ in cameras and joints: never pool.",
        source="Trumble et al., Total Capture, 2017",
    ),
    dataclasses.replace(
        _VP3D, name="surreal", data_set="surreal",
        train=tuple(f"{n:02d}" for n in range(145) if n not in _SURREAL_TEST), validation=(),
        test=tuple(f"{n:02d}" for n in _SURREAL_TEST),
        keypoints="true 2D positions in whole pixels (joints2D)", average="frame", fps=30.0,
        actions=(),
        notes="Validation: a tenth of the training subjects; the published val is a part of the "
        "test. Clips overlap, so that most frames count more than once.",
        source="Varol et al., Learning from synthetic humans, 2017",
    ),
    dataclasses.replace(
        _VP3D, name="jta", data_set="jta", train=("train",), validation=(), test=("test",),
        keypoints="true 2D positions, occluded joints unseen", average="frame", fps=30.0,
        actions=(),
        notes="Validation: the published val, which the authors count as test too. Tracks of at "
        "least 9 frames.",
        source="Fabbri et al., JTA, 2018",
    ),
    _3DHP,
    dataclasses.replace(
        _3DHP, name="mpi-inf-3dhp-univ",
        notes="Against univ_annot3, poses scaled to one height: not comparable with annot3. "
        "Over all valid frames, as P-STMO counts; 3DPCK and its area as in mpi-inf-3dhp.",
    ),
)
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({p.name: p for p in _ALL})


def get(name: str) -> Protocol:
    """Looks up a protocol."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    close = nearest(name, PROTOCOLS)
    hint = f" Did you mean {close}?" if close else ""
    raise UserError(f"no protocol is called {name!r}.{hint} Protocols: {', '.join(PROTOCOLS)}")


def same(results: Mapping[str, Mapping]) -> Protocol:
    """Returns the one protocol of several results, which may then stand in one table.

    Arguments:
      results: by their names, each with `protocol` and `counts` with `frames` and `sequences`, as
        metrics.json of `jaxcxr score --task=pose` has them.
    """
    found: dict[str, list[str]] = {}
    frames: dict[tuple, str] = {}
    for name, result in results.items():
        try:
            protocol, counts = result["protocol"], result["counts"]
            size = (counts["sequences"], counts["frames"])
        except (KeyError, TypeError):
            raise UserError(
                f"{name}: says no protocol and counts; give metrics.json of jaxcxr score "
                "--task=pose"
            ) from None
        found.setdefault(str(protocol), []).append(name)
        frames.setdefault(size, name)
    if len(found) > 1:
        groups = "; ".join(f"{protocol}: {', '.join(names)}" for protocol, names in found.items())
        raise UserError(
            f"results of several protocols do not belong in one table ({groups}); make one table "
            "of each"
        )
    if len(frames) > 1:
        (one, first), (other, second) = list(frames.items())[:2]
        raise UserError(
            f"{first} was scored on {one[1]:,} frames of {one[0]} sequences, {second} on "
            f"{other[1]:,} of {other[0]}; score both on the same frames"
        )
    return get(next(iter(found)))
