"""Geometries of tokens: distances for spans, relative positions for learned biases.

A geometry gives every token a place, a short row of integers, and computes from two arrays of
places what any part of the n x m table holds, so that the whole table is never needed. Geometries
are static pytrees: they pass through `jax.jit` and `flax.linen.remat` like `None`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcxr.errors import UserError


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class TokenSequence:
    """Tokens in a row, such as frames; any number of them.

    Arguments:
      reach: relative positions up to this many tokens either way have a bias of their own, and
        all beyond share that of the last (Shaw, Uszkoreit & Vaswani 2018, clipping distance).
    """

    reach: int = 128

    @property
    def relations(self) -> int:
        """Number of relative positions."""
        return 2 * self.reach + 1

    def places(self, count: int) -> np.ndarray:
        """Place of each of `count` tokens, int32 `[count, 1]`."""
        return np.arange(count, dtype=np.int32)[:, None]

    def largest(self, queries: int, keys: int) -> int:
        """The largest distance between so many tokens."""
        return max(queries, keys) - 1

    def distance(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """|i - j| in tokens, int32 `[..., queries, keys]`, from places `[..., n, 1]`."""
        return jnp.abs(_offset(query, key)[..., 0])

    def relation(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Index of j - i in the table of biases, int32 `[..., queries, keys]`."""
        return jnp.clip(-_offset(query, key)[..., 0], -self.reach, self.reach) + self.reach


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Grid:
    """Patches of an image in row order, after tokens such as the class token that stand nowhere.

    Arguments:
      rows: of patches.
      columns: of patches.
      prefix: number of tokens before the patches. Their distance to all others is 0, both ways.
    """

    rows: int
    columns: int
    prefix: int = 0

    @property
    def relations(self) -> int:
        """Number of relative positions: row and column offsets, and three kinds of prefix pair."""
        return (2 * self.rows - 1) * (2 * self.columns - 1) + 3

    def places(self, count: int) -> np.ndarray:
        """Row, column and whether a patch, int32 `[count, 3]`."""
        if count != self.prefix + self.rows * self.columns:
            raise UserError(
                f"{count} tokens are not {self.prefix} and a grid of {self.rows}x{self.columns}; "
                "give the grid of the tokens."
            )
        patches = np.indices((self.rows, self.columns)).reshape(2, -1).T
        patches = np.concatenate([patches, np.ones((len(patches), 1), int)], 1)
        return np.concatenate([np.zeros((self.prefix, 3), int), patches]).astype(np.int32)

    def largest(self, queries: int, keys: int) -> int:
        """The largest distance, across the grid."""
        del queries, keys
        return max(self.rows, self.columns) - 1

    def distance(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Chebyshev distance in patches, int32 `[..., queries, keys]`, of places `[..., n, 3]`."""
        both = query[..., :, None, 2] * key[..., None, :, 2]
        # Axis by axis: XLA takes seconds to fold a reduction over the places of many patches.
        rows = jnp.abs(query[..., :, None, 0] - key[..., None, :, 0])
        columns = jnp.abs(query[..., :, None, 1] - key[..., None, :, 1])
        return jnp.maximum(rows, columns) * both

    def relation(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Index in the table of biases, int32 `[..., queries, keys]` (Liu et al. 2021, Swin).

        The last three are prefix to prefix, prefix to patch and patch to prefix.
        """
        row, column = jnp.moveaxis(-_offset(query, key)[..., :2], -1, 0)
        index = (row + self.rows - 1) * (2 * self.columns - 1) + column + self.columns - 1
        first, second = query[..., :, None, 2], key[..., None, :, 2]
        return jnp.where(first * second > 0, index, self.relations - 3 + 2 * first + second)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Tree:
    """Joints of a kinematic tree.

    Arguments:
      parents: index of each joint's parent, -1 for the root; a parent stands before its children.
    """

    parents: tuple[int, ...]

    @functools.cached_property
    def hops(self) -> np.ndarray:
        """Bones between two joints, int32 `[joints, joints]`."""
        table = np.zeros((len(self.parents),) * 2, np.int32)
        for child, parent in enumerate(self.parents):
            if parent >= 0:
                table[child, :child] = table[:child, child] = table[parent, :child] + 1
        return table

    @property
    def relations(self) -> int:
        """Number of relative positions: every pair of joints has its own."""
        return len(self.parents) ** 2

    def places(self, count: int) -> np.ndarray:
        """Number of each joint, int32 `[count, 1]`."""
        if count != len(self.parents):
            raise UserError(
                f"{count} tokens are not the {len(self.parents)} joints of the tree; give the "
                "parents of the joints."
            )
        return np.arange(count, dtype=np.int32)[:, None]

    def largest(self, queries: int, keys: int) -> int:
        """The largest distance between two joints."""
        del queries, keys
        return int(self.hops.max())

    def distance(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Hops, int32 `[..., queries, keys]`, of places `[..., n, 1]`."""
        return jnp.asarray(self.hops)[query[..., :, None, 0], key[..., None, :, 0]]

    def relation(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Index of the pair, int32 `[..., queries, keys]`."""
        return query[..., :, None, 0] * len(self.parents) + key[..., None, :, 0]


class Measured:
    """Distances given as a table `[queries, keys]`; it knows no relative positions."""

    relations = 0

    def __init__(self, table: jax.Array):
        self.table = table

    def places(self, count: int) -> np.ndarray:
        """Number of each token, int32 `[count, 1]`."""
        return np.arange(count, dtype=np.int32)[:, None]

    def largest(self, queries: int, keys: int) -> jax.Array:
        """The largest entry of the table."""
        del queries, keys
        return jnp.max(jnp.asarray(self.table))

    def distance(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Entries of the table, `[..., queries, keys]`."""
        return jnp.asarray(self.table)[query[..., :, None, 0], key[..., None, :, 0]]


Geometry = TokenSequence | Grid | Tree | Measured


def geometry(distance: Any) -> Geometry | None:
    """The geometry in the argument `distance` of an attention; an array becomes `Measured`."""
    if distance is None or isinstance(distance, Geometry):
        return distance
    return Measured(distance)


def of_layout(
    grid: tuple[int, ...] | None = None, global_tokens: int = 0,
    parents: tuple[int, ...] = (),
) -> Geometry:
    """Makes a geometry from the layout of tokens that a model gives to its layers."""
    if parents:
        return Tree(parents)
    return Grid(grid[0], grid[1], global_tokens) if grid else TokenSequence()


def _offset(query: jax.Array, key: jax.Array) -> jax.Array:
    return query[..., :, None, :] - key[..., None, :, :]
