"""Minus the Laplacian on the fluid cells of a grid, as a 5- or 7-point stencil that is never assembled.

With unit spacing and no coefficients it is the graph Laplacian of the fluid cells: a fluid neighbour couples,
a SOLID one contributes nothing, an AIR one only to the diagonal. One 16-bit word per cell holds all that (see
`kernels.reference.stencil`), so a product reads x, the word, and writes y: about 18 bytes a cell in float64,
where CSR moves over 100 in 3D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from neuralsolve.errors import NonFiniteError, ShapeError, StructureError
from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like, shared
from neuralsolve.operators.grid import AIR, FLUID, SOLID, WALLS, Grid
from neuralsolve.operators.nullspace import NullSpace, from_components, grid_components

if TYPE_CHECKING:
    import scipy.sparse

GHOST = {"neumann": SOLID, "dirichlet": AIR}


class PoissonStencil(LinearOperator):
    """-div(c grad) on the fluid cells of a grid, in units of 1/spacing**2.

    Acts on **all** cells of the grid, flattened in C order: entries outside FLUID are ignored on the way in
    and zero on the way out. Symmetric positive definite, or semi-definite with the constant null space of
    every fluid region that touches neither AIR nor a Dirichlet wall. The full Dirichlet box has eigenvalues
    sum_a 4/h_a^2 sin^2(i_a pi / (2 (n_a + 1))), i_a = 1..n_a.

    Parameters
    ----------
    grid : Grid
    coefficients : one tensor or array per axis, optional
        Face coefficients (1/rho): axis a holds n_a + 1 faces along itself, walls included, so the shapes in
        2D are (ny + 1, nx) and (ny, nx + 1). Finite, >= 0; the two end faces of a periodic axis are one face
        and must agree. A gradient reaches them.
    dtype : torch.float64 or torch.float32, that of the coefficients by default

    Raises
    ------
    ShapeError, StructureError, NonFiniteError

    Examples
    --------
    >>> A = PoissonStencil(Grid((2, 2), walls="dirichlet"))
    >>> A.to_scipy().toarray().astype(int).tolist()
    [[4, -1, -1, 0], [-1, 4, 0, -1], [-1, 0, 4, -1], [0, -1, -1, 4]]
    """

    def __init__(
        self, grid: Grid, coefficients: Sequence[Any] | None = None, dtype: torch.dtype | None = None
    ):
        self.grid = grid
        self.coefficients = None if coefficients is None else _check_faces(coefficients, grid)
        dtype = dtype or (self.coefficients[0].dtype if self.coefficients else torch.float64)
        super().__init__((grid.size, grid.size), dtype, torch.device("cpu"), {"spd"})
        self.shape3 = (1,) * (3 - len(grid.shape)) + grid.shape
        self.scale = (0.0,) * (3 - len(grid.shape)) + tuple(1 / h**2 for h in grid.spacing)
        self.active = None if grid.is_box else grid.fluid.reshape(-1)
        self._faces: tuple[Tensor, Tensor] | None = None
        self._faces_version: tuple[int, ...] = ()
        self._code: Tensor | None = None
        if self.coefficients is None:
            self._code = torch.empty(grid.size, dtype=torch.uint16)
            cells = grid.cells.reshape(self.shape3)
            table(self.device).stencil_code(cells, self._wall_words(), self._code)
        self.null_space = self._null_space()

    def matvec(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        out = output_like(x, self.shape[0], out)
        K = table(x.device)
        if self._code is not None:
            K.stencil_matvec(self._code, self.scale, self.shape3, x, out)
        else:
            K.faces_matvec(*self.faces(), self.shape3, x, out)
        return out

    def matvec_dot(self, x: Tensor, out: Tensor) -> Tensor:
        K = table(x.device)
        if self._code is not None:
            return K.stencil_matvec_dot(self._code, self.scale, self.shape3, x, out)
        return K.faces_matvec_dot(*self.faces(), self.shape3, x, out)

    def faces(self) -> tuple[Tensor, Tensor]:
        """Return the diagonal ``(n,)`` and every cell's coupling ``(3, n)`` to its lower z, y, x neighbour.

        Couplings are >= 0, wrap to the last cell on a periodic axis, and are 0 where there is none; a
        diagonal of 0 marks a cell outside. Made once: 4 vectors in 3D, 3 in 2D (the z row is a broadcast
        zero).
        """
        version = tuple(c._version for c in self.coefficients or ())
        if self._faces is None or version != self._faces_version:  # an optimiser writes in place
            self._faces_version = version
            diagonal = torch.zeros(self.grid.shape, dtype=self.dtype)
            lower = []
            for axis, side in enumerate(self.grid.shape):
                conductance, both_fluid = self._conductance(axis)
                diagonal += conductance.narrow(axis, 0, side) + conductance.narrow(axis, 1, side)
                lower.append((conductance * both_fluid).narrow(axis, 0, side).reshape(-1))
            diagonal *= self.grid.fluid
            first = [torch.zeros(self.grid.size, dtype=self.dtype)] * (3 - len(lower))
            self._faces = diagonal.reshape(-1), torch.stack(first + lower)
        return self._faces

    @property
    def code(self) -> Tensor | None:
        """The rows in 16 bits each, ``(n,)``; None with coefficients. See `kernels.reference.stencil`."""
        return self._code

    def outlets(self, axis: int) -> Tensor:
        """Return every fluid cell's coupling to the value zero along an axis of the grid, ``(n,)``.

        That of air and of Dirichlet walls; the diagonal is the sum of these and of the couplings of `faces`.
        """
        conductance, both_fluid = self._conductance(axis)
        leaving = conductance * ~both_fluid
        side = self.grid.shape[axis]
        total = leaving.narrow(axis, 0, side) + leaving.narrow(axis, 1, side)
        return (total * self.grid.fluid).reshape(-1)

    def diagonal(self) -> Tensor:
        if self._code is None:
            return self.faces()[0]
        counts = self._code.to(torch.int32)
        return sum((counts >> (6 + 2 * a) & 3).to(self.dtype) * s for a, s in enumerate(self.scale))  # type: ignore[return-value]

    def to_scipy(self) -> scipy.sparse.csr_array:
        import scipy.sparse

        diagonal, lower = (part.numpy() for part in self.faces())
        n, cell = self.shape[0], np.arange(self.shape[0], dtype=np.int32).reshape(self.shape3)
        inside = np.flatnonzero(diagonal)
        rows, columns, values = [inside], [inside], [diagonal[inside]]
        for axis in range(3):
            i = np.flatnonzero(lower[axis])
            j = np.roll(cell, 1, axis).ravel()[i]
            rows += [i, j]
            columns += [j, i]
            values += [-lower[axis, i]] * 2
        entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
        return scipy.sparse.coo_array(entries, shape=(n, n)).tocsr()

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> PoissonStencil:
        if device is not None and torch.device(device) != self.device:
            msg = (
                f"PoissonStencil runs on the CPU, asked for {device}; "
                "ns.as_operator(A.to_scipy()).to(device) moves it"
            )
            raise StructureError(msg)
        if dtype is None or dtype == self.dtype:
            return self
        faces = None if self.coefficients is None else [c.to(dtype) for c in self.coefficients]
        return PoissonStencil(self.grid, faces, dtype)

    def parameters(self) -> tuple[Tensor, ...]:
        return self.coefficients or ()

    def __reduce__(self) -> tuple[Any, ...]:
        return PoissonStencil, (self.grid, self.coefficients, self.dtype)  # the rest is made from these

    def parameter_gradients(self, lam: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        if self.coefficients is None:
            return ()
        gradients = []
        fields = [(v.reshape(*self.grid.shape, -1) * self.grid.fluid[..., None]) for v in (lam, x)]
        for axis, c in enumerate(self.coefficients):
            jumps = [torch.diff(_with_ghosts(v, self.grid, axis, 0), dim=axis) for v in fields]
            product = -(jumps[0] * jumps[1]).sum(-1) / self.grid.spacing[axis] ** 2  # -d/dc of lam . A x
            product = product * self._open(axis)[0]
            if self.grid.periodic[axis]:  # the end faces are one face given twice: half of its gradient each
                ends = product.narrow(axis, 0, 1) / 2
                product = torch.cat([ends, product.narrow(axis, 1, c.shape[axis] - 2), ends], axis)
            gradients.append(product.to(c.dtype))
        return tuple(gradients)

    def _open(self, axis: int) -> tuple[Tensor, Tensor]:
        """Return which faces along `axis` conduct, and which of them join two fluid cells; n_a + 1 faces."""
        low, high = _face_sides(self.grid.cells, self.grid, axis)
        fluid_low, fluid_high = low == FLUID, high == FLUID
        conducts = (fluid_low & (high != SOLID)) | (fluid_high & (low != SOLID))
        if self.grid.periodic[axis] and self.grid.shape[axis] == 1:
            conducts = torch.zeros_like(conducts)  # a cell that is its own neighbour: no flux
        return conducts, fluid_low & fluid_high

    def _conductance(self, axis: int) -> tuple[Tensor, Tensor]:
        conducts, both_fluid = self._open(axis)
        conductance = conducts.to(self.dtype) / self.grid.spacing[axis] ** 2
        if self.coefficients is not None:
            conductance = conductance * self.coefficients[axis].detach().to(self.dtype)
        return conductance, both_fluid

    def _wall_words(self) -> Tensor:
        words = [("neumann", "neumann")] * (3 - len(self.grid.shape)) + list(self.grid.walls)
        return torch.tensor([WALLS.index(word) for pair in words for word in pair], dtype=torch.int8)

    def _null_space(self) -> NullSpace | None:
        """Return the constants on the fluid regions with no way out; None where every region has one."""
        fluid = self.grid.fluid.numpy()
        if self.coefficients is not None and any(bool((c.detach() == 0).any()) for c in self.coefficients):
            return self._null_space_of_graph()  # closed faces can cut a region in two
        if self.grid.is_box:
            grounded = any("dirichlet" in pair for pair in self.grid.walls)
            return None if grounded else from_components(np.zeros(self.grid.size, np.int64), np.array([True]))
        labels, count = grid_components(fluid, self.grid.periodic)
        outlet = np.zeros(self.grid.shape, bool)
        for axis in range(fluid.ndim):
            low, high = (side.numpy() for side in _face_sides(self.grid.cells, self.grid, axis))
            side = self.grid.shape[axis]
            outlet |= np.take(low == AIR, range(side), axis) | np.take(high == AIR, range(1, side + 1), axis)
        return self._from_outlets(labels, count, outlet.ravel())

    def _null_space_of_graph(self) -> NullSpace | None:
        from scipy.sparse.csgraph import connected_components

        A = self.to_scipy()
        count, labels = connected_components(A, directed=False)
        labels = np.where(self.grid.fluid.numpy().ravel(), labels, -1)
        size = abs(A) @ np.ones(len(labels))
        return self._from_outlets(labels, count, abs(A @ np.ones(len(labels))) > 1e-12 * size)

    def _from_outlets(self, labels: np.ndarray, count: int, outlet: np.ndarray) -> NullSpace | None:
        singular = np.bincount(labels[labels >= 0], minlength=count) > 0
        singular[labels[outlet & (labels >= 0)]] = False
        return from_components(labels, singular)


def face_coefficients(values: Any, grid: Grid) -> tuple[Tensor, ...]:
    """Return the harmonic means of cell coefficients on all faces, for `PoissonStencil(grid, coefficients)`.

    Parameters
    ----------
    values : tensor or array of the grid's shape, positive; a gradient passes through
        A wall face takes the value of its cell.
    grid : Grid

    Raises
    ------
    ShapeError, StructureError
    """
    values = torch.as_tensor(values)
    if tuple(values.shape) != grid.shape:
        msg = f"cell coefficients are {tuple(values.shape)}; the grid is {grid.shape}"
        raise ShapeError(msg)
    bad = ~((values.detach() > 0) & torch.isfinite(values.detach()))
    if bool(bad.any()):
        where = tuple(int(i) for i in bad.nonzero()[0])
        msg = (
            f"cell coefficients must be positive and finite, cell {where} holds "
            f"{float(values[where].detach())}; close single faces with coefficients of 0 in "
            "ns.PoissonStencil(grid, faces)"
        )
        raise StructureError(msg)
    faces = []
    for axis in range(values.ndim):
        ends = (-1, 0) if grid.periodic[axis] else (0, -1)
        padded = torch.cat([values.select(axis, i).unsqueeze(axis) for i in ends[:1]] + [values], axis)
        padded = torch.cat([padded, values.select(axis, ends[1]).unsqueeze(axis)], axis)
        n = grid.shape[axis] + 1
        low, high = padded.narrow(axis, 0, n), padded.narrow(axis, 1, n)
        faces.append(2 / (1 / low + 1 / high))
    return tuple(faces)


def _with_ghosts(v: Tensor, grid: Grid, axis: int, beyond: int | tuple[int, int]) -> Tensor:
    """Return v with one layer of cells beyond each wall along `axis`: wrapped, or filled with `beyond`."""
    if grid.periodic[axis]:
        n = grid.shape[axis]
        return torch.cat([v.narrow(axis, n - 1, 1), v, v.narrow(axis, 0, 1)], axis)
    low, high = (beyond, beyond) if isinstance(beyond, int) else beyond
    width = [0, 0] * (v.ndim - axis - 1)
    return pad(pad(v, (*width, 1, 0), value=low), (*width, 0, 1), value=high)


def _face_sides(cells: Tensor, grid: Grid, axis: int) -> tuple[Tensor, Tensor]:
    """Return the flags of the cells on the low and high side of every face along `axis`."""
    beyond = (GHOST.get(grid.walls[axis][0], 0), GHOST.get(grid.walls[axis][1], 0))
    padded = _with_ghosts(cells, grid, axis, beyond)
    faces = grid.shape[axis] + 1
    return padded.narrow(axis, 0, faces), padded.narrow(axis, 1, faces)


def _check_faces(coefficients: Sequence[Any], grid: Grid) -> tuple[Tensor, ...]:
    needed = [tuple(s + (a == axis) for a, s in enumerate(grid.shape)) for axis in range(len(grid.shape))]
    if not isinstance(coefficients, Sequence) or isinstance(coefficients, str):
        msg = (
            f"face coefficients are a {type(coefficients).__name__}; one array per axis is needed, of shapes "
            f"{needed}: ns.face_coefficients(cell_values, grid) makes them from cell values"
        )
        raise ShapeError(msg)
    faces = tuple(c if isinstance(c, Tensor) else shared(np.asarray(c)) for c in coefficients)
    if [tuple(c.shape) for c in faces] != needed:
        given = [tuple(c.shape) for c in faces]
        msg = (
            f"face coefficients have shapes {given}; a grid of {grid.shape} needs {needed}, n + 1 faces "
            "along each axis; ns.face_coefficients(cell_values, grid) makes them from cell values"
        )
        raise ShapeError(msg)
    if any(c.is_complex() for c in faces):
        msg = "face coefficients are complex; real numbers >= 0 are needed"
        raise StructureError(msg)
    faces = tuple(c if c.dtype in (torch.float32, torch.float64) else c.double() for c in faces)
    for axis, c in enumerate(faces):
        values = c.detach()
        if not bool(torch.isfinite(values).all()):
            msg = f"face coefficients along axis {axis} hold NaN or infinite values"
            raise NonFiniteError(msg)
        if bool((values < 0).any()):
            msg = (
                f"face coefficients along axis {axis} fall to {float(values.min())}; they must be >= 0 (0: "
                "closed)"
            )
            raise StructureError(msg)
        if grid.periodic[axis] and not torch.equal(values.select(axis, 0), values.select(axis, -1)):
            msg = (
                f"axis {axis} is periodic: its first and last faces are the same face, and their values "
                "differ"
            )
            raise StructureError(msg)
    return faces
