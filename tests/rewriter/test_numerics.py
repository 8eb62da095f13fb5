"""Systems of least squares."""

from __future__ import annotations

import numpy as np
import pytest

from graft.rewriter import numerics
from graft.rewriter.numerics import Factored, ridge, solve, with_penalty


@pytest.mark.parametrize("groups", [(), (1,), (3,)])
def test_ridge_solves_the_normal_equations(groups: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    rows, targets = random.normal(size=(*groups, 20, 5)), random.normal(size=(*groups, 20, 2))
    turned = rows.swapaxes(-1, -2)
    penalty = random.uniform(0.1, 2, groups)
    found = ridge(turned @ rows, turned @ targets, penalty)
    slope = turned @ (rows @ found - targets) + penalty[..., None, None] * found
    np.testing.assert_allclose(slope, 0, atol=1e-10)
    assert found.shape == (*groups, 5, 2)


def test_a_system_has_one_or_several_right_hand_sides() -> None:
    matrix = np.array([[4.0, 1], [1, 3]])
    np.testing.assert_allclose(matrix @ solve(matrix, np.array([1.0, 2])), [1, 2])
    np.testing.assert_allclose(solve(matrix, np.eye(2)) @ matrix, np.eye(2), atol=1e-12)


def test_a_matrix_that_rounding_made_indefinite_is_solved_all_the_same() -> None:
    matrix = np.array([[1.0, 1], [1, 1 - 1e-9]])
    right = np.array([1.0, 2])
    np.testing.assert_allclose(matrix @ solve(matrix, right), right, rtol=1e-6)


def test_what_is_not_finite_has_no_finite_solution() -> None:
    assert np.isnan(ridge(np.full((2, 2), np.nan), np.ones((2, 1)), 1.0)).all()


def test_nothing_is_asked_of_no_equations() -> None:
    assert ridge(np.zeros((0, 0)), np.zeros((0, 3)), 1.0).shape == (0, 3)


@pytest.mark.parametrize("shape", [(), (2,)])
def test_large_systems_are_factored_once_for_all_right_hand_sides(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numerics, "LARGE", 20)
    monkeypatch.setattr(numerics, "BLOCK", 16)
    random = np.random.default_rng(0)
    rows = random.normal(size=(*shape, 90, 50))
    matrix = rows.swapaxes(-1, -2) @ rows
    factored = Factored(matrix)
    monkeypatch.setattr(np.linalg, "cholesky", None)
    for right in (random.normal(size=(*shape, 50, 3)), random.normal(size=(*shape, 50, 70))):
        before = right.copy()
        np.testing.assert_allclose(factored.solve(right), np.linalg.solve(matrix, right), rtol=1e-9)
        assert (right == before).all()
    if not shape:
        one = random.normal(size=50)
        np.testing.assert_allclose(factored.solve(one), np.linalg.solve(matrix, one), rtol=1e-9)


def test_a_large_matrix_that_is_not_positive_or_not_finite_is_left_to_elimination(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(numerics, "LARGE", 1)
    matrix, right = np.array([[1.0, 1], [1, 1 - 1e-9]]), np.array([1.0, 2])
    np.testing.assert_allclose(matrix @ solve(matrix, right), right, rtol=1e-6)
    assert np.isnan(solve(np.full((2, 2), np.nan), np.ones((2, 1)))).all()


@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_huge_matrix_is_factored_in_its_place(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LARGE", 20), ("HUGE", 40), ("BLOCK", 16)):
        monkeypatch.setattr(numerics, name, value)
    random = np.random.default_rng(0)
    rows, right = random.normal(size=(*shape, 90, 50)), random.normal(size=(*shape, 50, 3))
    matrix = rows.swapaxes(-1, -2) @ rows
    before, expected = matrix.copy(), np.linalg.solve(matrix, right)
    np.testing.assert_allclose(Factored(matrix).solve(right), expected, rtol=1e-9)
    assert (matrix == before).all()
    own = Factored(matrix, own=True)
    np.testing.assert_allclose(own.solve(right), expected, rtol=1e-9)
    assert own._lower is matrix
    before[..., 33, 33] = -1  # in the third block: two are factored by then
    turned = before.copy()
    found = Factored(turned, own=True)
    assert (turned == before).all() and found._lower is None
    np.testing.assert_allclose(before @ found.solve(right), right, atol=1e-8)


def test_a_singular_matrix_gives_no_numbers() -> None:
    assert np.isnan(solve(np.zeros((2, 2)), np.ones(2))).all()
    assert np.isnan(solve(np.zeros((3, 2, 2)), np.ones((3, 2, 1)))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("penalty", [0.3, np.array([0.1, 0.2, 0.3])])
def test_a_penalty_is_added_without_copies_to_the_same_bytes(dtype: type, penalty: object) -> None:
    gram = np.random.default_rng(0).normal(size=(3, 6, 6)).astype(dtype)
    gram[:, 0, 1] = -0.0
    expected = gram + np.asarray(penalty)[..., None, None] * np.eye(6)
    assert with_penalty(gram, penalty).tobytes() == expected.tobytes()
    with np.errstate(invalid="ignore"):
        assert np.isnan(with_penalty(gram, np.inf)).any(axis=(1, 2)).all()
