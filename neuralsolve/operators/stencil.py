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

from neuralsolve.kernels import table
from neuralsolve.operators.base import LinearOperator, output_like, shallow
from neuralsolve.operators.coefficients import check_faces, face_sides, with_ghosts
from neuralsolve.operators.grid import FLUID, SOLID, WALLS, Grid
from neuralsolve.operators.nullspace import NullSpace
from neuralsolve.operators.vectors import empty

if TYPE_CHECKING:
    import scipy.sparse


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

    Notes
    -----
    It is made on the CPU. `A.to("cuda")` has its products on a GPU, and so has every solve with it; grid and
    coefficients stay on the CPU, where hierarchies are made from them.

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
        self.grid, closed = grid, False
        self.coefficients: tuple[Tensor, ...] | None = None
        if coefficients is not None:
            self.coefficients, closed = check_faces(coefficients, grid)
        dtype = dtype or (self.coefficients[0].dtype if self.coefficients else torch.float64)
        super().__init__((grid.size, grid.size), dtype, torch.device("cpu"), {"spd"})
        self._made: PoissonStencil | None = None  # on the CPU, where this one has been moved
        self.shape3 = (1,) * (3 - len(grid.shape)) + grid.shape
        self.scale = (0.0,) * (3 - len(grid.shape)) + tuple(1 / h**2 for h in grid.spacing)
        self.active = None if grid.is_box else grid.fluid.reshape(-1)
        self._faces: tuple[Tensor, Tensor] | None = None
        self._faces_version: tuple[int, ...] = ()
        self._code = self._make_code(False) if self.coefficients is None else None
        self.null_space = self._null_space(closed)

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

    def direction_dot(
        self, z: Tensor, beta: Tensor, p: Tensor, spare: Tensor | None, Ap: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        if spare is None or z.device.type == "cpu":  # where two passes are as fast as one that does both
            return super().direction_dot(z, beta, p, spare, Ap)
        K = table(z.device)
        if self._code is not None:
            curvature = K.stencil_direction_dot(self._code, self.scale, self.shape3, z, beta, p, spare, Ap)
        else:
            curvature = K.faces_direction_dot(*self.faces(), self.shape3, z, beta, p, spare, Ap)
        return spare, p, curvature

    def faces(self) -> tuple[Tensor, Tensor]:
        """Return the diagonal ``(n,)`` and every cell's coupling ``(3, n)`` to its lower z, y, x neighbour.

        Couplings are >= 0, wrap to the last cell on a periodic axis, and are 0 where there is none; a
        diagonal of 0 marks a cell outside. Made once: 4 vectors in 3D, 3 in 2D (the z row is a broadcast
        zero).
        """
        version = tuple(c._version for c in self.coefficients or ())
        if self._faces is None or version != self._faces_version:  # an optimiser writes in place
            self._faces_version = version
            if self._made is not None:
                diagonal, lower = self._made.faces()
                self._faces = diagonal.to(self.device), lower.to(self.device)
                return self._faces
            like, n = torch.empty(0, dtype=self.dtype), self.shape[0]
            self._faces = empty((n,), like), empty((3, n), like)
            table(self.device).faces_assemble(*self._cells(), self.scale, self._coefficients3(), *self._faces)
        return self._faces

    @property
    def code(self) -> Tensor | None:
        """The rows in 16 bits each, ``(n,)``; None with coefficients. See `kernels.reference.stencil`."""
        return self._code

    def outlets(self, axis: int) -> Tensor:
        """Return every fluid cell's coupling to the value zero along an axis of the grid, ``(n,)``.

        That of air and of Dirichlet walls; the diagonal is the sum of these and of the couplings of `faces`.
        """
        out, a = empty((self.shape[0],), torch.empty(0, dtype=self.dtype)), axis + 3 - len(self.grid.shape)
        table(self.device).faces_outlets(*self._cells(), a, self.scale[a], self._coefficients3()[a], out)
        return out

    def face_data(self) -> tuple[Tensor, Tensor, tuple[float, ...], list[Tensor]]:
        """Return cells, walls, 1/spacing^2 and face coefficients as kernels take them."""
        return *self._cells(), self.scale, self._coefficients3()

    def diagonal(self) -> Tensor:
        if self._code is None:
            return self.faces()[0]
        counts = self._code.to(torch.int32)
        return sum((counts >> (6 + 2 * a) & 3).to(self.dtype) * s for a, s in enumerate(self.scale))  # type: ignore[return-value]

    def to_scipy(self) -> scipy.sparse.csr_array:
        import scipy.sparse

        if self._made is not None:
            return self._made.to_scipy()
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
        device, dtype = self._destination(device, dtype)
        if (device, dtype) == (self.device, self.dtype):
            return self
        made = self._made or self
        if dtype != self.dtype:
            faces = None if self.coefficients is None else [c.to(dtype) for c in self.coefficients]
            made = PoissonStencil(self.grid, faces, dtype)
        if device == made.device:
            return made
        moved = shallow(made)
        moved.device, moved._made, moved._faces = device, made, None
        moved._code = None if made._code is None else made._code.to(device)
        return made._handing_on(moved)

    def parameters(self) -> tuple[Tensor, ...]:
        return self.coefficients or ()

    def __reduce__(self) -> tuple[Any, ...]:
        given = self.grid, self.coefficients, self.dtype  # the rest is made from these
        return _stencil_on, (self.device, *given)

    def parameter_gradients(self, lam: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        if self.coefficients is None:
            return ()
        gradients = []
        fields = [(v.cpu().reshape(*self.grid.shape, -1) * self.grid.fluid[..., None]) for v in (lam, x)]
        for axis, c in enumerate(self.coefficients):
            jumps = [torch.diff(with_ghosts(v, self.grid, axis, 0), dim=axis) for v in fields]
            product = -(jumps[0] * jumps[1]).sum(-1) / self.grid.spacing[axis] ** 2  # -d/dc of lam . A x
            product = product * self._open(axis)
            if self.grid.periodic[axis]:  # the end faces are one face given twice: half of its gradient each
                ends = product.narrow(axis, 0, 1) / 2
                product = torch.cat([ends, product.narrow(axis, 1, c.shape[axis] - 2), ends], axis)
            gradients.append(product.to(c.dtype))
        return tuple(gradients)

    def _open(self, axis: int) -> Tensor:
        """Return which faces along `axis` conduct; n_a + 1 faces."""
        low, high = face_sides(self.grid.cells, self.grid, axis)
        conducts = ((low == FLUID) & (high != SOLID)) | ((high == FLUID) & (low != SOLID))
        if self.grid.periodic[axis] and self.grid.shape[axis] == 1:
            conducts = torch.zeros_like(conducts)  # a cell that is its own neighbour: no flux
        return conducts

    def _cells(self) -> tuple[Tensor, Tensor]:
        """Return cells and walls as kernels take them."""
        words = [("neumann", "neumann")] * (3 - len(self.grid.shape)) + list(self.grid.walls)
        walls = torch.tensor([WALLS.index(word) for pair in words for word in pair], dtype=torch.int8)
        return self.grid.cells.reshape(self.shape3), walls

    def _coefficients3(self) -> list[Tensor]:
        """Return the coefficients as kernels take them: flat, of z, y and x, empty where they are one."""
        given = [c.detach().to(self.dtype).contiguous().reshape(-1) for c in self.coefficients or ()]
        return [torch.empty(0, dtype=self.dtype)] * (3 - len(given)) + given

    def _make_code(self, closed: bool) -> Tensor:
        code = torch.from_numpy(np.empty(self.shape[0], np.uint16))
        if closed:
            table(self.device).faces_code(*self._cells(), self._coefficients3(), code)
        else:
            table(self.device).stencil_code(*self._cells(), code)
        return code

    def _null_space(self, closed: bool) -> NullSpace | None:
        """Return the constants on the fluid regions with no way out; None where every region has one.

        `closed` faces, of coefficient 0, can cut a region in two.
        """
        if self.active is None and not closed and any("dirichlet" in pair for pair in self.grid.walls):
            return None
        code = self._make_code(closed) if self._code is None else self._code
        labels = torch.from_numpy(np.empty(self.shape[0], np.int32))
        counts = table(self.device).stencil_regions(code, self.shape3, labels)
        return NullSpace(labels, counts) if len(counts) else None


def _stencil_on(device: torch.device, *given: Any) -> PoissonStencil:
    return PoissonStencil(*given).to(device)
