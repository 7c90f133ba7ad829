"""Each example runs, and ends in the number that its text promises."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
PROMISES = {
    "01_solve": lambda relative: relative <= 1e-8,
    "02_pressure_in_your_code": lambda iterations: 0 < iterations <= 10,
    "03_gradients": lambda permeability: permeability == pytest.approx(5.0, abs=1e-3),
    "04_scipy_drop_in": lambda info: info == 0,
    "05_smoke": lambda divergence: divergence <= 1e-6,
    "06_learned": lambda ratio: ratio >= 8,
    "07_tuned": lambda ratio: ratio <= 0.95,
    "08_surrogate": lambda left: left <= 0.05,
    "09_control": lambda difference: difference <= 1e-6,
    "10_sequences": lambda difference: difference <= 1e-10,
    "11_low_rank": lambda left: left <= 0.2,
    "12_gpu": lambda relative: relative <= 1.01e-8,
}


def test_every_example_makes_a_promise():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(PROMISES)


@pytest.mark.parametrize("name", PROMISES)
def test_example(name, capsys):
    path = FOLDER / f"{name}.py"
    assert len(path.read_text().splitlines()) < 60
    result = runpy.run_path(str(path))["main"]()
    assert PROMISES[name](result), result
    assert capsys.readouterr().out  # it shows something
