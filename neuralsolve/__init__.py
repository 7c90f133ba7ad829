"""Linear systems and PDEs from Python: fast, honest about convergence, learned where learning pays."""

from neuralsolve.errors import FormatError as FormatError
from neuralsolve.errors import InputError as InputError
from neuralsolve.errors import NonFiniteError as NonFiniteError
from neuralsolve.errors import OptionError as OptionError
from neuralsolve.errors import ShapeError as ShapeError
from neuralsolve.errors import SolveError as SolveError
from neuralsolve.errors import StructureError as StructureError
from neuralsolve.models.neural import NeuralDirection as NeuralDirection
from neuralsolve.operators.base import LinearOperator as LinearOperator
from neuralsolve.operators.coefficients import face_coefficients as face_coefficients
from neuralsolve.operators.convert import as_operator as as_operator
from neuralsolve.operators.csr import CSROperator as CSROperator
from neuralsolve.operators.grid import AIR as AIR
from neuralsolve.operators.grid import FLUID as FLUID
from neuralsolve.operators.grid import SOLID as SOLID
from neuralsolve.operators.grid import Grid as Grid
from neuralsolve.operators.stencil import PoissonStencil as PoissonStencil
from neuralsolve.operators.structured import Block as Block
from neuralsolve.operators.structured import CallableOperator as CallableOperator
from neuralsolve.operators.structured import DenseOperator as DenseOperator
from neuralsolve.operators.structured import DiagonalPlusLowRank as DiagonalPlusLowRank
from neuralsolve.preconditioners.amg import AMG as AMG
from neuralsolve.preconditioners.incomplete import IncompleteCholesky as IncompleteCholesky
from neuralsolve.preconditioners.incomplete import IncompleteLU as IncompleteLU
from neuralsolve.preconditioners.multigrid import Multigrid as Multigrid
from neuralsolve.preconditioners.neural_multigrid import NeuralMultigrid as NeuralMultigrid
from neuralsolve.preconditioners.relaxation import SOR as SOR
from neuralsolve.preconditioners.relaxation import SSOR as SSOR
from neuralsolve.preconditioners.relaxation import Jacobi as Jacobi
from neuralsolve.solvers.bicgstab import BiCGStab as BiCGStab
from neuralsolve.solvers.dcdm import DCDM as DCDM
from neuralsolve.solvers.direct import SparseLU as SparseLU
from neuralsolve.solvers.embedded import EmbeddedBox as EmbeddedBox
from neuralsolve.solvers.fast_poisson import FastPoisson as FastPoisson
from neuralsolve.solvers.flexible import FlexibleCG as FlexibleCG
from neuralsolve.solvers.gmres import GMRES as GMRES
from neuralsolve.solvers.krylov import CG as CG
from neuralsolve.solvers.minres import MINRES as MINRES
from neuralsolve.solvers.prepared import Prepared as Prepared
from neuralsolve.solvers.result import SolveResult as SolveResult
from neuralsolve.solvers.result import Status as Status
from neuralsolve.solvers.richardson import Richardson as Richardson
from neuralsolve.solvers.solve import prepare as prepare
from neuralsolve.solvers.solve import solve as solve

__version__ = "0.1.0"
