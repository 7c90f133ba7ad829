"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Method = Annotated[
    str | None,
    typer.Option(
        "--method", metavar="NAME", help="cg, minres, 'gmres(restart=50)', sparselu, ...; chosen if left out"
    ),
]
Preconditioner = Annotated[
    str | None,
    typer.Option(
        "--M",
        metavar="NAME",
        help="preconditioner: jacobi, 'ssor(omega=1.5)', multigrid, 'amg(kind=sa)', ic, ...",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
Force = Annotated[bool, typer.Option("--force", help="replace existing output files")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="write a picture")]
Data = Annotated[str, typer.Argument(metavar="DATA", help="samples: .h5, .mat, .npy, .npz, .pt, ...")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="a .safetensors file of `neuralsolve train`")]
Steps = Annotated[int | None, typer.Option(min=1, help="of a roll-out; all frames of DATA if left out")]
First = Annotated[int, typer.Option(min=0, help="number of the first sample")]
Count = Annotated[int | None, typer.Option(min=1, help="how many samples; all that follow if left out")]
Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE.csv", help="write the rows")]
