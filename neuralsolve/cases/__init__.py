"""Problems as files: one TOML schema that the command line, tests, examples and benchmarks share.

`find_case` finds a file by path or bare name, `load_case` reads and checks it, its `problem` method makes A
and b; `open_problem` does all that for a case, a matrix or a mesh alike. A smoke case gives a `SmokeCase`,
a training a `TrainCase` or a `CycleCase`, a sequence of systems a `SequenceCase`, a constrained minimisation
a `ControlCase`.
"""

from neuralsolve.cases.files import case_folders, find_case, list_cases, load_case
from neuralsolve.cases.problem import Problem, open_problem, right_side

__all__ = ["Problem", "case_folders", "find_case", "list_cases", "load_case", "open_problem", "right_side"]
