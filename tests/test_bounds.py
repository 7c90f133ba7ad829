"""No kernel reads or writes outside its arrays: the tests of the kernels once more, with numba's checks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("test_kernels_*.py") if path.name != "test_kernels_threads.py")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_kernels_stay_inside_their_arrays(name, tmp_path):
    checked = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / name)]
    done = subprocess.run(command, env=checked, capture_output=True, text=True, cwd=HERE.parent, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
