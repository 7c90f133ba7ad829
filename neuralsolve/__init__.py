"""neuralsolve: linear systems and PDEs from Python, fast, honest about convergence, learned where learning pays."""

from neuralsolve.errors import FormatError as FormatError
from neuralsolve.errors import InputError as InputError
from neuralsolve.errors import NonFiniteError as NonFiniteError
from neuralsolve.errors import OptionError as OptionError
from neuralsolve.errors import ShapeError as ShapeError
from neuralsolve.errors import SolveError as SolveError
from neuralsolve.errors import StructureError as StructureError
from neuralsolve.operators.base import LinearOperator as LinearOperator
from neuralsolve.operators.convert import as_operator as as_operator
from neuralsolve.operators.csr import CSROperator as CSROperator
from neuralsolve.operators.grid import AIR as AIR
from neuralsolve.operators.grid import FLUID as FLUID
from neuralsolve.operators.grid import SOLID as SOLID
from neuralsolve.operators.grid import Grid as Grid
from neuralsolve.operators.stencil import PoissonStencil as PoissonStencil
from neuralsolve.operators.stencil import face_coefficients as face_coefficients
from neuralsolve.operators.structured import Block as Block
from neuralsolve.operators.structured import CallableOperator as CallableOperator
from neuralsolve.operators.structured import DenseOperator as DenseOperator
from neuralsolve.operators.structured import DiagonalPlusLowRank as DiagonalPlusLowRank
from neuralsolve.solvers.direct import SparseLU as SparseLU
from neuralsolve.solvers.krylov import CG as CG
from neuralsolve.solvers.result import SolveResult as SolveResult
from neuralsolve.solvers.result import Status as Status
from neuralsolve.solvers.richardson import Richardson as Richardson

__version__ = "0.1.0"
