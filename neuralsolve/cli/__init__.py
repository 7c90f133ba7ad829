"""The command line: ``neuralsolve solve | simulate | minimize | train | data | evaluate | bench | ...``.

Exit codes: 0 success (converged), 1 not converged or something broken, 2 wrong input. With ``--json``
standard output holds one JSON object and nothing else; progress and errors go to standard error.
"""

from neuralsolve.cli.app import app
from neuralsolve.cli.start import main

__all__ = ["app", "main"]
