"""Pictures of state-space systems: what they show is the data."""

import numpy as np
import pytest
from test_plot import png_size

from neuralsolve import plot
from neuralsolve.errors import OptionError, ShapeError
from neuralsolve.ssm import hippo
from neuralsolve.ssm.pseudospectrum import pseudospectrum


def test_gains_are_drawn_with_their_resonances(tmp_path):
    t = np.geomspace(0.1, 1000, 50)
    gains = {"HiPPO": hippo.resolvent_norm(16, t), "S4D": 2 * hippo.resolvent_norm(16, t)}
    figure = plot.transfer_function_figure(t, gains, [(25.6, 3.2), (80.97, 10.2)], "n = 16")
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["HiPPO", "S4D", "resonances"]
    for line, gain in zip(axes.lines, gains.values(), strict=False):
        assert np.array_equal(line.get_xdata(), t)
        assert np.array_equal(line.get_ydata(), gain)
    assert axes.lines[-1].get_xydata().tolist() == [[25.6, 3.2], [80.97, 10.2]]
    assert "10.2" in axes.texts[0].get_text()
    assert "80.97" in axes.texts[0].get_text()
    assert axes.get_xscale() == axes.get_yscale() == "log"
    plot.save(figure, tmp_path / "gains.png")
    assert min(png_size(tmp_path / "gains.png")) > 400


def test_the_pseudospectrum_has_the_eigenvalues_on_it(tmp_path):
    A = hippo.legs(6)[0]
    groups = {"A": -np.arange(1, 7.0), "normal part": hippo.normal_eigenvectors(6)[0]}
    figure = plot.pseudospectrum_figure(A, groups, points=12, title="n = 6")
    axes = figure.axes[0]
    points = {line.get_label(): line for line in axes.lines}
    for name, z in groups.items():
        assert np.array_equal(points[name].get_xdata(), np.real(z))
        assert np.array_equal(points[name].get_ydata(), np.imag(z))
    left, right = axes.get_xlim()
    lower, upper = axes.get_ylim()
    assert left < -6 < 0 < right
    assert lower < groups["normal part"].imag.min()
    values = np.log10(pseudospectrum(A, np.linspace(left, right, 12), np.linspace(lower, upper, 12)))
    filled = axes.collections[0]
    assert filled.levels.max() >= np.percentile(values, 90)
    plot.save(figure, tmp_path / "spectra.png")
    assert min(png_size(tmp_path / "spectra.png")) > 400


def test_a_window_needs_no_eigenvalues():
    figure = plot.pseudospectrum_figure(np.diag([-1.0, -2.0]), points=8, window=(-3, 0.5, -1, 1))
    assert figure.axes[0].get_xlim() == (-3, 0.5)
    assert figure.axes[0].get_legend() is None


def test_what_cannot_be_drawn_is_told():
    with pytest.raises(ShapeError, match=r"'a' has gains of shape \(2,\)"):
        plot.transfer_function_figure([1.0, 2.0, 3.0], {"a": [1.0, 2.0]})
    with pytest.raises(OptionError, match="got 0 systems"):
        plot.transfer_function_figure([1.0], {})
    with pytest.raises(OptionError, match="or a window"):
        plot.pseudospectrum_figure(np.eye(2))
