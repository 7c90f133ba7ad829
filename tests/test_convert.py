"""The door for foreign matrices and vectors: what is sensible comes in unchanged, the rest is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import neuralsolve as ns
from neuralsolve.operators.convert import as_vector, check_finite
from neuralsolve.operators.nullspace import from_vectors

M = np.array([[4.0, 0, -1, 0], [0, 3, 0, 0.5], [-1, 0, 5, 0], [0, 2, 0, 6]])
COO = sp.coo_array(M)
DOUBLED = np.tile(np.stack([COO.row, COO.col]), 2), np.tile(COO.data / 2, 2)  # every entry in two halves


def unsorted():
    A = sp.csr_array(M)
    order = np.concatenate([np.arange(a, b)[::-1] for a, b in zip(A.indptr[:-1], A.indptr[1:], strict=True)])
    return sp.csr_array((A.data[order], A.indices[order], A.indptr), shape=A.shape)


def unsorted_with_a_stale_flag():
    A = unsorted()
    A.has_sorted_indices = A.has_canonical_format = True
    return A


def duplicated():
    A = sp.csr_array(M)
    return sp.csr_array((np.repeat(A.data / 2, 2), np.repeat(A.indices, 2), 2 * A.indptr), shape=A.shape)


def long_indices():
    A = sp.csr_array(M)
    A.indices, A.indptr = A.indices.astype(np.int64), A.indptr.astype(np.int64)
    return A


def read_only(A):
    for part in (A,) if isinstance(A, np.ndarray) else (A.data, A.indices, A.indptr):
        part.setflags(write=False)
    return A


def torch_coo():
    indices, values = (torch.from_numpy(part.copy()) for part in DOUBLED)
    return torch.sparse_coo_tensor(indices, values, (4, 4), check_invariants=True)


class Function:
    shape, dtype = (4, 4), np.dtype(np.float64)

    def __call__(self, x):
        return M @ x


SPARSE = [f"{kind}_array" for kind in ("csr", "csc", "coo", "dia", "bsr", "lil", "dok")]
SPARSE += [f"{kind}_matrix" for kind in ("csr", "csc", "coo", "dia")]
FOREIGN = {
    **{kind: (lambda kind=kind: getattr(sp, kind)(M)) for kind in SPARSE},
    "unsorted": unsorted,
    "unsorted, flagged as sorted": unsorted_with_a_stale_flag,
    "duplicates": duplicated,
    "duplicates in coo": lambda: sp.coo_array((DOUBLED[1], DOUBLED[0])),
    "64-bit indices": long_indices,
    "read-only csr": lambda: read_only(sp.csr_array(M)),
    "numpy": lambda: M.copy(),
    "numpy matrix": lambda: np.asmatrix(M),
    "fortran order": lambda: np.asfortranarray(M),
    "strided": lambda: np.repeat(M, 2, axis=1)[:, ::2],
    "read-only": lambda: read_only(M.copy()),
    "big-endian": lambda: M.astype(">f8"),
    "lists": lambda: M.tolist(),
    "scipy operator": lambda: spla.aslinearoperator(M),
    "function": Function,
    "torch": lambda: torch.from_numpy(M.copy()),
    "torch transposed": lambda: torch.from_numpy(M.T.copy()).T,
    "torch csr": lambda: torch.from_numpy(M.copy()).to_sparse_csr(),
    "torch csc": lambda: torch.from_numpy(M.copy()).to_sparse_csc(),
    "torch coo": lambda: torch_coo().coalesce(),
    "torch coo with duplicates": torch_coo,
    "ours": lambda: ns.DenseOperator(torch.from_numpy(M.copy())),
}


def contents(A):
    """Return the bytes of the buffers of a matrix."""
    parts = [getattr(A, name, None) for name in ("data", "indices", "indptr")] if sp.issparse(A) else [A]
    arrays = [part.to_dense().numpy() if isinstance(part, torch.Tensor) else part for part in parts]
    return [np.ascontiguousarray(part).tobytes() for part in arrays if isinstance(part, np.ndarray | list)]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.filterwarnings("ignore:Sparse CS. tensor support:UserWarning")
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_every_kind_of_matrix_comes_in_and_stays_as_it_was(name):
    A = FOREIGN[name]()
    before = contents(A)
    operator = ns.as_operator(A)
    assert (operator.shape, operator.dtype) == ((4, 4), torch.float64)
    x = torch.eye(4, dtype=torch.float64)
    assert torch.equal(operator @ x, torch.from_numpy(M))
    assert torch.equal(operator @ x[:, 2].contiguous(), torch.from_numpy(M[:, 2]))
    if name != "function":
        assert torch.equal(operator.rmatvec(x), torch.from_numpy(M.T.copy()))
    assert contents(A) == before


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "uint16", "float64", "longdouble"])
def test_numbers_of_other_kinds_become_float64(dtype):
    values = (M != 0).astype(dtype)
    for A in (values, sp.csr_array(values.astype(float)).astype(dtype)):
        operator = ns.as_operator(A)
        assert operator.dtype == torch.float64
        assert (operator @ torch.ones(4, dtype=torch.float64)).tolist() == (M != 0).sum(1).tolist()


def test_float32_stays_float32():
    single = M.astype(np.float32)
    for A in (single, sp.csr_array(single), torch.from_numpy(single), spla.aslinearoperator(single)):
        assert ns.as_operator(A).dtype == torch.float32


def test_buffers_are_shared_not_copied():
    A = sp.csr_array(M)
    assert ns.as_operator(A).values.data_ptr() == A.data.ctypes.data
    D = M.copy()
    assert ns.as_operator(D).values.data_ptr() == D.ctypes.data


def test_known_properties_are_added_to_a_copy():
    A = ns.as_operator(M)
    assert ns.as_operator(A) is A
    assert ns.as_operator(A, props={"spd"}).props == {"spd", "symmetric"}
    assert A.props == frozenset()
    with pytest.raises(ns.OptionError, match=re.escape("did you mean 'symmetric'?")):
        ns.as_operator(A, props={"symetric"})


SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)


@given(hnp.arrays(float, SHAPES, elements=st.floats(-9, 9)), st.sampled_from(["csr", "csc", "coo", "dia"]))
@settings(max_examples=60, deadline=None)
def test_any_pattern_is_kept(A, kind):
    operator = ns.as_operator(getattr(sp, f"{kind}_array")(A))
    assert np.array_equal(operator.to_scipy().toarray(), A)
    assert np.array_equal(operator.diagonal().numpy(), np.diagonal(A))
    x = np.arange(1.0, A.shape[1] + 1)
    atol = 1e-13 * (abs(A) @ x).max()
    np.testing.assert_allclose((operator @ torch.from_numpy(x)).numpy(), A @ x, rtol=0, atol=atol)


# refusals: what is given, exception, what the message says


def csr(indptr, indices, values, shape=(3, 3)):
    return lambda: ns.CSROperator(torch.tensor(indptr), torch.tensor(indices), torch.tensor(values), shape)


def bad_scipy(**parts):
    A = sp.csr_array(np.eye(3))
    for name, value in parts.items():
        setattr(A, name, np.array(value, getattr(A, name).dtype))
    return lambda: ns.as_operator(A)


def no_transpose():
    ns.as_operator(spla.LinearOperator((3, 3), matvec=lambda x: x, dtype=float)).rmatvec(one(3))


def one(x):
    return torch.ones(x, dtype=torch.float64)


def function(x):
    return x[:2]


EYE = sp.eye_array(3, format="csr")
FUNCTION = ns.CallableOperator(function, (3, 3))
REFUSED = {
    "float16": (
        lambda: ns.as_operator(np.eye(3, dtype=np.float16)),
        ns.StructureError,
        "float16, too coarse",
    ),
    "bfloat16": (
        lambda: ns.as_operator(torch.eye(3, dtype=torch.bfloat16)),
        ns.StructureError,
        "astype('float32')",
    ),
    "complex": (lambda: ns.as_operator(np.eye(3) * 1j), ns.StructureError, "[[Re, -Im], [Im, Re]]"),
    "complex sparse": (lambda: ns.as_operator(EYE * 1j), ns.StructureError, "complex128"),
    "complex in lists": (
        lambda: ns.as_operator([[1j, 0], [0, 1]]),
        ns.StructureError,
        "real numbers are needed",
    ),
    "complex torch": (lambda: ns.as_operator(torch.eye(2) * 1j), ns.StructureError, "complex64"),
    "complex scipy operator": (
        lambda: ns.as_operator(spla.aslinearoperator(np.eye(2) * 1j)),
        ns.StructureError,
        "complex128",
    ),
    "strings": (lambda: ns.as_operator([["a", "b"]]), ns.StructureError, "numbers of type float64"),
    "objects": (lambda: ns.as_operator(np.array([[None, 1], [1, None]])), ns.StructureError, "object"),
    "dates": (lambda: ns.as_operator(np.zeros((2, 2), "datetime64[s]")), ns.StructureError, "datetime64"),
    "ragged lists": (lambda: ns.as_operator([[1.0, 2.0], [3.0]]), ns.ShapeError, "makes no matrix"),
    "None": (lambda: ns.as_operator(None), ns.StructureError, "A is a NoneType"),
    "a bare function": (
        lambda: ns.as_operator(lambda x: x),
        ns.StructureError,
        "ns.CallableOperator(function",
    ),
    "one axis": (lambda: ns.as_operator(np.ones(3)), ns.ShapeError, "a matrix has two axes"),
    "three axes": (lambda: ns.as_operator(torch.ones(2, 2, 2)), ns.ShapeError, "(2, 2, 2)"),
    "empty": (lambda: ns.as_operator(np.zeros((0, 0))), ns.ShapeError, "A is empty"),
    "empty sparse": (lambda: ns.as_operator(sp.csr_array((0, 3))), ns.ShapeError, "A is empty"),
    "NaN": (lambda: ns.as_operator(np.diag([1.0, np.nan])), ns.NonFiniteError, "np.isfinite"),
    "infinity": (
        lambda: ns.as_operator(EYE * np.inf),
        ns.NonFiniteError,
        "A has 3 NaN or infinite values of 3",
    ),
    "column beyond the matrix": (
        bad_scipy(indices=[0, 1, 3]),
        ns.StructureError,
        "column indices run from 0 to 3",
    ),
    "negative column": (bad_scipy(indices=[0, -1, 2]), ns.StructureError, "from -1"),
    "unsorted, indptr past the end": (
        bad_scipy(indices=[2, 1, 0], indptr=[0, 9, 3, 3]),
        ns.StructureError,
        "must rise",
    ),
    "column beyond, unsorted": (
        bad_scipy(indices=[2, 7, 0], indptr=[0, 3, 3, 3]),
        ns.StructureError,
        "A has 3 columns",
    ),
    "falling indptr": (bad_scipy(indptr=[0, 3, 1, 3]), ns.StructureError, "indptr must rise from 0"),
    "indptr past the end": (bad_scipy(indptr=[0, 1, 9, 3]), ns.StructureError, "indptr must rise"),
    "short indptr": (csr([0, 3], [0, 1, 2], [1.0, 1, 1]), ns.ShapeError, "indptr (4,)"),
    "indptr not from 0": (csr([1, 1, 2, 3], [0, 1, 2], [1.0, 1, 1]), ns.StructureError, "rise from 0"),
    "fewer indices than values": (csr([0, 1, 2, 3], [0, 1], [1.0, 1, 1]), ns.StructureError, "(given 2)"),
    "unsorted columns": (
        csr([0, 2, 2, 3], [1, 0, 2], [1.0, 1, 1]),
        ns.StructureError,
        "ns.as_operator(scipy_matrix)",
    ),
    "repeated columns": (csr([0, 2, 2, 3], [1, 1, 2], [1.0, 1, 1]), ns.StructureError, "sorted and unique"),
    "NaN in CSR": (csr([0, 1, 2, 3], [0, 1, 2], [1.0, np.nan, 1]), ns.NonFiniteError, "1 NaN or infinite"),
    "unknown property": (
        lambda: ns.DenseOperator(torch.eye(2), {"psd"}),
        ns.OptionError,
        "did you mean 'spd'?",
    ),
    "dense of one axis": (lambda: ns.DenseOperator(torch.ones(3)), ns.ShapeError, "two axes"),
    "function of the wrong length": (
        lambda: FUNCTION @ one(3),
        ns.ShapeError,
        "returned (2,); (3,) is needed",
    ),
    "diagonal of a function": (lambda: FUNCTION.diagonal(), ns.StructureError, "diagonal=..."),
    "transpose of a function": (lambda: FUNCTION.rmatvec(one(3)), ns.StructureError, "no transposed product"),
    "transpose of a scipy operator": (no_transpose, ns.StructureError, "no transposed product"),
    "empty blocks": (lambda: ns.Block([]), ns.ShapeError, "rows of equal length"),
    "a row of no operator": (lambda: ns.Block([[None, None]]), ns.ShapeError, "exactly one is needed"),
    "blocks that do not fit": (
        lambda: ns.Block([[ns.as_operator(M), ns.as_operator(np.eye(3))]]),
        ns.ShapeError,
        "row 0",
    ),
    "factors that do not fit": (
        lambda: ns.DiagonalPlusLowRank(torch.ones(3), torch.ones(2, 1)),
        ns.ShapeError,
        "(n, r)",
    ),
    "NaN in a factor": (
        lambda: ns.DiagonalPlusLowRank(torch.ones(3), torch.full((3, 1), np.nan)),
        ns.NonFiniteError,
        "U holds NaN",
    ),
    "no null vector": (lambda: from_vectors(np.zeros((5, 0)), 5), ns.ShapeError, "(5, m)"),
    "zero null vector": (
        lambda: from_vectors(np.zeros(5), 5),
        ns.StructureError,
        "dependent, zero or non-finite",
    ),
    "dependent null vectors": (
        lambda: from_vectors(np.ones((5, 2)), 5),
        ns.StructureError,
        "scipy.linalg.orth",
    ),
    "null vector of the wrong length": (lambda: from_vectors(np.ones(4), 5), ns.ShapeError, "(4, 1)"),
    "b of the wrong length": (lambda: as_vector(np.ones(3), 4), ns.ShapeError, "b must be (4,) or (4, k)"),
    "b of no column": (lambda: as_vector(np.ones((4, 0)), 4), ns.ShapeError, "(4, 0)"),
    "b a number": (lambda: as_vector(1.0, 4), ns.ShapeError, "A has 4 rows"),
    "b of three axes": (lambda: as_vector(torch.ones(4, 1, 1), 4), ns.ShapeError, "(4, 1, 1)"),
    "b ragged": (lambda: as_vector([[1], [1, 2]], 2), ns.ShapeError, "makes no vector"),
    "b complex": (lambda: as_vector(np.ones(4) * 1j, 4), ns.StructureError, "complex128"),
    "b of strings": (lambda: as_vector(["1"] * 4, 4), ns.StructureError, "numbers"),
    "b float16": (lambda: as_vector(torch.ones(4, dtype=torch.float16), 4), ns.StructureError, "too coarse"),
    "b with NaN": (
        lambda: check_finite(torch.tensor([1.0, np.nan, -np.inf]), "b"),
        ns.NonFiniteError,
        "b has 2 NaN or infinite entries of 3",
    ),
    "b with both infinities": (
        lambda: check_finite(torch.tensor([np.inf, -np.inf]), "b"),
        ns.NonFiniteError,
        "2 NaN",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_refused_with_the_remedy(name):
    make, kind, words = REFUSED[name]
    with pytest.raises(kind, match=re.escape(words)) as caught:
        make()
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("library", ["numpy", "torch", "sparse"])
def test_vectors_come_in_as_float64_and_go_back_as_they_came(kind, library):
    b = np.arange(8).reshape(4, 2).astype(kind)
    given_b = {"numpy": np.asfortranarray, "torch": torch.from_numpy, "sparse": sp.csr_array}[library](b)
    v, home = as_vector(given_b, 4)
    assert v.dtype == torch.float64
    assert v.is_contiguous()
    assert v.tolist() == b.tolist()
    back = home.bring(v)
    assert isinstance(back, torch.Tensor if library == "torch" else np.ndarray)
    assert str(back.dtype).endswith("float32" if kind == np.float32 else "float64")
    assert home.epsilon == np.finfo(np.float32 if kind == np.float32 else np.float64).eps


def test_large_finite_vectors_are_finite():
    assert check_finite(torch.full((4,), -1.7e308, dtype=torch.float64), "b") == 1.7e308  # whose sum is not
