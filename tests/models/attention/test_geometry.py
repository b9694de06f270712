import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csgraph

from jaxcxr.errors import UserError
from jaxcxr.models.attention.geometry import Grid, Measured, TokenSequence, Tree, geometry

# A body of 17 joints, root first.
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)


def table(of, count, what="distance"):
    places = jnp.asarray(of.places(count))
    return np.asarray(getattr(of, what)(places, places))


def test_distances_on_a_line():
    np.testing.assert_array_equal(table(TokenSequence(), 4)[1], [1, 0, 1, 2])


def test_distances_on_a_grid_are_chebyshev_and_0_to_the_class_token():
    found = table(Grid(3, 4, prefix=1), 13)
    assert (found[0] == 0).all()
    assert (found[:, 0] == 0).all()
    for i, j in np.ndindex(12, 12):
        (a, b), (c, d) = divmod(i, 4), divmod(j, 4)
        assert found[1 + i, 1 + j] == max(abs(a - c), abs(b - d))


def test_distances_on_a_tree_are_hops():
    links = np.zeros((17, 17))
    for child, parent in enumerate(PARENTS):
        if parent >= 0:
            links[child, parent] = 1
    expected = csgraph.shortest_path(links, directed=False)
    np.testing.assert_array_equal(table(Tree(PARENTS), 17), expected)
    assert expected.max() == 8  # wrist to ankle


def test_relations_on_a_line_are_clipped_offsets():
    found = table(TokenSequence(reach=2), 5, "relation")
    assert TokenSequence(reach=2).relations == 5
    np.testing.assert_array_equal(found[0], [2, 3, 4, 4, 4])
    np.testing.assert_array_equal(found[4], [0, 0, 0, 1, 2])


def test_relations_on_a_grid_tell_offsets_apart_and_nothing_else():
    grid = Grid(2, 3, prefix=2)
    found = table(grid, 8, "relation")
    seen = {}
    for i, j in np.ndindex(8, 8):
        if i >= 2 and j >= 2:
            (a, b), (c, d) = divmod(i - 2, 3), divmod(j - 2, 3)
            key = (c - a, d - b)
        else:
            key = (i >= 2, j >= 2, "prefix")
        assert seen.setdefault(key, found[i, j]) == found[i, j]
    assert sorted(seen.values()) == list(range(grid.relations))


def test_relations_on_a_tree_are_pairs():
    tree = Tree((-1, 0, 1))
    np.testing.assert_array_equal(table(tree, 3, "relation").ravel(), np.arange(tree.relations))


def test_a_table_of_distances_is_taken_as_it_is():
    distances = np.random.default_rng(0).random((4, 4))
    measured = geometry(distances)
    assert isinstance(measured, Measured)
    np.testing.assert_array_equal(table(measured, 4), distances.astype(np.float32))
    assert geometry(None) is None
    assert geometry(TokenSequence()) == TokenSequence()


def test_another_number_of_tokens_is_an_error():
    with pytest.raises(UserError, match="grid of 3x4"):
        Grid(3, 4).places(13)
    with pytest.raises(UserError, match="3 joints"):
        Tree((-1, 0, 1)).places(4)
