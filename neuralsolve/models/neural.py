"""`NeuralDirection`: a trained network as the M of a flexible method."""

from __future__ import annotations

import copy
import json
import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuralsolve.errors import FormatError, GridError, OptionError, ShapeError, StructureError
from neuralsolve.models.direction import DEPTHS, DirectionNet, memory_format, padded
from neuralsolve.models.npsdo import StencilNet
from neuralsolve.operators.base import LinearOperator, output_like, shallow
from neuralsolve.operators.grid import AIR
from neuralsolve.operators.stencil import PoissonStencil
from neuralsolve.preconditioners.base import Preconditioner, Recipe
from neuralsolve.preconditioners.weights import read_tensors, weights_file

LARGEST = 2**28  # bytes of a weights file: beyond it, it is something else
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class NeuralDirection(Recipe):
    """A network r -> d, trained to point at the error; nothing of it is trusted: for `DCDM`.

    Two kinds. "dcdm": the convolutional network of Kaneda et al. (2023), nonlinear, blind to geometry: its
    output is masked to the fluid. "npsdo": stencils made from the cells (Lan et al. 2024), linear, made once
    a geometry in `build` and `update`. Both see r / ||r|| in float32, or less; the result is scaled back.
    Grids may have any size.

    Parameters
    ----------
    weights : name of shipped weights ("dcdm2d", "dcdm3d", "npsdo2d", ...), path of a safetensors file, or
        a network itself; None is "dcdm2d" or "dcdm3d", as the grid has dimensions
    precision : "float32", "bfloat16" or "float16", or that torch dtype, which weights and fields are rounded
        to; None is float32, and leaves the weights of a network as they are. All else is as precise as ever.

    Raises
    ------
    OptionError
        An unknown precision; in a solve: one that the network's layers have not on this device.
    OptionError, FileNotFoundError, FormatError
        From `build`: no such weights, those of `NeuralMultigrid`, or a file that holds something else.
    StructureError
        From `build`: A is no `PoissonStencil`, or of other dimensions than the network; for "npsdo" a
        periodic axis.

    Examples
    --------
    >>> import neuralsolve as ns, torch
    >>> A = ns.PoissonStencil(ns.Grid((64, 64), walls="dirichlet"))
    >>> b = torch.randn(4096, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    >>> ns.solve(A, b, ns.DCDM(history=2), M=ns.NeuralDirection("dcdm2d"), rtol=1e-4).iterations < 30
    True
    """

    weights: str | os.PathLike[str] | nn.Module | None = None
    precision: str | torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.precision is not None and self.precision not in (*PRECISIONS, *PRECISIONS.values()):
            msg = (
                f"precision is {self.precision!r}; one of {', '.join(PRECISIONS)} is needed, as in "
                "ns.NeuralDirection(precision='bfloat16')"
            )
            raise OptionError(msg)

    def build(self, A: LinearOperator) -> Preconditioner:
        """Read the weights; make what depends on the geometry of A."""
        if isinstance(self.weights, nn.Module):
            net, name = self.weights, type(self.weights).__name__
        else:
            usual = f"dcdm{len(grid_bound(A, None, 'dcdm').grid.shape)}d"
            path = weights_file(usual if self.weights is None else self.weights, "NeuralDirection")
            net, name = load_network(path)[0], path.stem
        grid_bound(A, getattr(net, "dim", None), name)
        dtype = PRECISIONS.get(self.precision, self.precision)  # type: ignore[arg-type]
        return (_Stencils if isinstance(net, StencilNet) else _Network)(net, name, A, dtype)


def grid_bound(A: LinearOperator, dim: int | None, name: str) -> PoissonStencil:
    """Return A where it is a stencil on a grid of `dim` axes; refuse anything else."""
    if not isinstance(A, PoissonStencil):
        msg = (
            f"the network {name} works on the cells of a grid, A is a {type(A).__name__} that tells of none; "
            "pass ns.PoissonStencil(grid), or grid=cells beside the matrix, or take ns.AMG()"
        )
        raise GridError(msg)
    if dim is not None and len(A.grid.shape) != dim:
        msg = f"the network {name} was made for {dim} dimensions, the grid is {A.grid.shape}"
        raise StructureError(msg)
    return A


def load_network(path: Path) -> tuple[nn.Module, dict[str, str]]:
    """Return the network of a weights file, and the file's metadata.

    Raises
    ------
    FormatError
        No safetensors file, one without an architecture, or tensors that do not fit it.
    """
    if path.stat().st_size > LARGEST:
        msg = f"{path} has {path.stat().st_size} bytes; weights of at most {LARGEST} are expected"
        raise FormatError(msg)
    tensors, metadata = read_tensors(path)
    try:
        net = make_network(**json.loads(metadata["architecture"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        msg = (
            f"{path}: its metadata name no network of this package ({type(error).__name__}: {error}); a file "
            "written by `neuralsolve train` is needed, for example that of `neuralsolve train train_dcdm2d`"
        )
        raise FormatError(msg) from None
    expected = {key: value.shape for key, value in net.state_dict().items()}
    found = {key: value.shape for key, value in tensors.items()}
    if expected != found:
        wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        msg = (
            f"{path}: {wrong[0]} has shape {found.get(wrong[0])}, its network needs {expected.get(wrong[0])}"
        )
        raise FormatError(msg)
    net.load_state_dict(tensors)
    return net, metadata


def make_network(network: str, dim: int, **options: Any) -> nn.Module:
    """Return an untrained network: "dcdm" (depth, width) or "npsdo" (own_levels)."""
    if dim not in (2, 3):
        msg = f"dim is {dim!r}; 2 or 3 is needed"
        raise ValueError(msg)
    if network == "dcdm":
        depth, width = options.pop("depth", "shallow"), options.pop("width", 16)
        if depth in DEPTHS and 1 <= int(width) <= 256 and not options:
            return DirectionNet(dim, depth, int(width))
    elif network == "npsdo":
        own_levels = options.pop("own_levels", 3)
        if 1 <= int(own_levels) <= 12 and not options:
            return StencilNet(dim, int(own_levels))
    msg = f"no network {network!r} with {options}; dcdm (depth, width) and npsdo (own_levels) are known"
    raise ValueError(msg)


class _Directions(Preconditioner):
    """What both kinds share: unit fields, the mask of A's rows, several columns as a batch.

    `dtype` is that of the fields.
    """

    def __init__(self, net: nn.Module, name: str, A: LinearOperator, dtype: torch.dtype | None):
        self.net, self.name = copy.deepcopy(net).eval(), name  # the mode of the caller's own stays as it is
        self.dtype, self.device = dtype or torch.float32, torch.device("cpu")
        self.update(A)

    def to(self, device: torch.device) -> _Directions:
        """Return M for vectors on another device: all that `apply` needs lives there."""
        if device == self.device:
            return self
        moved = shallow(self)
        moved.device, moved.stays = device, device.type != "cpu"
        moved.acts = self.acts.to(device)
        moved._bring()
        return moved

    @abstractmethod
    def _bring(self) -> None:
        """Bring what the network is made of to the device, into tensors of this object's own."""

    def apply(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return self._on_fields(self._propose, r, out)

    def _on_fields(self, function: Callable[[Tensor], Tensor], r: Tensor, out: Tensor | None) -> Tensor:
        """Return what a function of unit fields makes of every column of r, scaled back, where A acts."""
        out = output_like(r, len(r), out)
        columns = r.reshape(len(r), -1)
        size = torch.linalg.vector_norm(columns, dim=0)
        unit = torch.where(size > 0, columns / size, 0.0)
        given = unit.T.to(self.dtype).reshape(-1, 1, *self.A.grid.shape)
        fields = torch.where(self.acts, given, 0.0)
        d = self._evaluated(function, fields)
        if not isinstance(d, Tensor):
            msg = f"the network {self.name} returned a {type(d).__name__}; a tensor like its input is needed"
            raise ShapeError(msg)
        if d.shape != fields.shape:
            msg = f"the network {self.name} returned {tuple(d.shape)} for fields of {tuple(fields.shape)}"
            raise ShapeError(msg)
        d = torch.where(self.acts, d, 0.0).reshape(len(fields), -1)
        return out.copy_((d.T.to(r.dtype) * size).reshape(r.shape))

    def _evaluated(self, function: Callable[[Tensor], Tensor], fields: Tensor) -> Tensor:
        try:
            return function(fields)
        except RuntimeError as error:
            if self.dtype == torch.float32 or "implemented" not in str(error):
                raise
            msg = (
                f"the network {self.name} has layers that torch does not evaluate in {self.dtype} on "
                f"{self.device.type} ({error}); leave precision out, or pass precision='bfloat16'"
            )
            raise OptionError(msg) from error

    def update(self, A_next: LinearOperator) -> None:
        self.A = grid_bound(A_next, getattr(self.net, "dim", None), self.name)
        self.acts = (self.A.diagonal() != 0).reshape(self.A.grid.shape).to(self.device)

    def describe(self) -> str:
        how = "" if self.dtype == torch.float32 else f" in {str(self.dtype).removeprefix('torch.')}"
        return f"the network {self.name}{how}"

    @abstractmethod
    def _propose(self, fields: Tensor) -> Tensor:
        """Return a direction for each field, in its precision."""


class _Network(_Directions):
    def __init__(self, net: nn.Module, name: str, A: LinearOperator, dtype: torch.dtype | None):
        super().__init__(net, name, A, dtype)
        self.net.to(dtype=dtype)

    def _bring(self) -> None:
        self.net = copy.deepcopy(self.net).to(self.device)

    def _propose(self, fields: Tensor) -> Tensor:
        shape = fields.shape[2:]
        v = padded(fields, getattr(self.net, "multiple", 1))
        if len(v) == 1 and len(shape) == 3 and v.device.type == "cpu":  # its fast ones take no batch of one
            v = torch.cat([v, v])
        d = self.net(v.to(memory_format=memory_format(len(shape))))
        if not isinstance(d, Tensor) or d.ndim != fields.ndim:
            return d  # told by the caller
        return d[(slice(len(fields)), slice(None), *(slice(side) for side in shape))]


class _Stencils(_Directions):
    """Stencils made of the cells, in float32; a Dirichlet wall is shown to the network as a layer of air."""

    net: StencilNet

    def update(self, A_next: LinearOperator) -> None:
        before = getattr(self, "A", None)
        super().update(A_next)
        grid = self.A.grid
        if any(grid.periodic):
            msg = (
                f"the network {self.name} knows no periodic axis, walls are {grid.walls}; take ns.Multigrid()"
            )
            raise StructureError(msg)
        if (
            before is not None
            and before.grid.walls == grid.walls
            and torch.equal(before.grid.cells, grid.cells)
        ):
            return
        self.layers = [tuple(int(wall == "dirichlet") for wall in pair) for pair in grid.walls]
        cells = grid.cells[None, None]
        room = [n for pair in reversed(self.layers) for n in pair]
        with torch.no_grad():
            self.frozen = self.net.freeze(nn.functional.pad(cells, room, value=AIR))
        self._bring()

    def _bring(self) -> None:
        self.frozen = self.frozen.to(self.device, self.dtype)

    def apply_transpose(self, r: Tensor, out: Tensor | None = None) -> Tensor:
        return self._on_fields(self._transposed, r, out)

    def _transposed(self, fields: Tensor) -> Tensor:
        with torch.enable_grad():  # z is linear in r: its derivative, transposed, is the same everywhere
            at = torch.zeros_like(fields, requires_grad=True)
            z = torch.where(self.acts, self._propose(at), 0.0)
            return torch.autograd.grad(z, at, fields)[0]

    def _propose(self, fields: Tensor) -> Tensor:
        shape = fields.shape[2:]
        v = nn.functional.pad(fields, [n for pair in reversed(self.layers) for n in pair])
        z = self.net.apply_frozen(self.frozen, v)
        inside = (slice(low, low + side) for (low, _), side in zip(self.layers, shape, strict=True))
        return z[(..., *inside)]
