"""Describes skeletons: joint names, kinematic tree, left/right swap and hop distances."""

import dataclasses
import functools

import numpy as np
from scipy.sparse import csgraph

from jaxcxr.errors import UserError


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """Joints connected to a tree.

    Attributes:
      joints: names in the order of every array's joint axis.
      parents: index of each joint's parent, -1 for the root; parents come before their children.
      left: indices of the left joints.
      right: indices of the right joints, in the order of `left`.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]

    def __post_init__(self):
        if len(self.joints) != len(self.parents) or len(self.left) != len(self.right):
            raise ValueError(f"skeleton {self.name}: lists of different lengths")
        if self.parents[0] != -1 or any(not 0 <= p < i for i, p in enumerate(self.parents) if i):
            raise ValueError(f"skeleton {self.name}: a parent must stand before its children")

    @property
    def num_joints(self) -> int:
        """Number of joints."""
        return len(self.joints)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """Pairs (parent, child), one for each joint except the root."""
        return tuple((parent, child) for child, parent in enumerate(self.parents) if parent >= 0)

    @property
    def swap(self) -> tuple[int, ...]:
        """Permutation that exchanges left and right joints."""
        order = list(range(self.num_joints))
        for left, right in zip(self.left, self.right, strict=True):
            order[left], order[right] = right, left
        return tuple(order)

    @functools.cached_property
    def hops(self) -> np.ndarray:
        """Number of bones between any two joints, int32 `[joints, joints]`."""
        edges = np.zeros((self.num_joints, self.num_joints))
        for parent, child in self.bones:
            edges[parent, child] = 1
        return csgraph.shortest_path(edges, directed=False, unweighted=True).astype(np.int32)

    def index(self, joint: str) -> int:
        """Looks up the index of a joint."""
        if joint not in self.joints:
            raise UserError(
                f"skeleton {self.name!r} has no joint {joint!r}; joints: {', '.join(self.joints)}."
            )
        return self.joints.index(joint)

    def bone_lengths(self, positions: np.ndarray) -> np.ndarray:
        """Computes the lengths `[..., joints - 1]` of `bones` from positions `[..., joints, 3]`."""
        parents, children = np.array(self.bones).T
        return np.linalg.norm(positions[..., children, :] - positions[..., parents, :], axis=-1)


# The 17 joints that VideoPose3D keeps of Human3.6M's 32, and their tree.
HUMAN36M = Skeleton(
    name="human36m",
    joints=(
        "hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
        "spine", "thorax", "neck", "head", "left_shoulder", "left_elbow", "left_wrist",
        "right_shoulder", "right_elbow", "right_wrist",
    ),
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    left=(4, 5, 6, 11, 12, 13),
    right=(1, 2, 3, 14, 15, 16),
)
