"""Pictures of predicted fields: what they show is the data."""

import dataclasses

import numpy as np
import pytest
from test_plot import png_size

from neuralsolve import plot
from neuralsolve.data import Layout, Samples
from neuralsolve.errors import ShapeError
from neuralsolve.io import grid_mesh
from neuralsolve.plot.errors import by_frame, relative_errors, spectrum
from neuralsolve.plot.fields import last_frames
from neuralsolve.plot.solution import SIGNED

rng = np.random.default_rng(5127)


def on_grid(*shape, n=3, inputs=1, outputs=1):
    axes = tuple(np.linspace(0, 1, side) for side in shape)
    fields = rng.random((n, inputs, *shape)), 1 + rng.random((n, outputs, *shape))
    return Samples(*fields, Layout(axes, ("a", "b")[:inputs], ("u", "v")[:outputs]))


def on_mesh(cells=True):
    mesh = grid_mesh((4, 6), [0.5, 0.5], np.ones(24, dtype=bool))
    fields = rng.random((2, 2, 1, len(mesh.points)))
    layout = Layout((), ("f",), ("u",))
    return Samples(*fields, layout, points=mesh.points, cells=mesh.cells if cells else None)


def noisy(samples):
    return samples.outputs + 0.1 * rng.standard_normal(samples.outputs.shape)


def test_rows_are_samples_and_columns_input_truth_prediction_and_error():
    samples = on_grid(7, 9)
    made = noisy(samples)
    figure = plot.fields_figure(samples, made, ["worst", "median", "best"], "darcy")
    panels = [axes for axes in figure.axes if axes.images and axes.get_label() != "<colorbar>"]
    assert len(panels) == 12
    for k, row in enumerate(np.reshape(np.array(panels, dtype=object), (3, 4))):
        shown = [axes.images[0].get_array() for axes in row]
        wanted = samples.inputs[k, 0], samples.outputs[k, 0], made[k, 0], made[k, 0] - samples.outputs[k, 0]
        assert all(np.array_equal(a, b) for a, b in zip(shown, wanted, strict=True))
        truth, found, error = (axes.images[0] for axes in row[1:])
        assert truth.get_clim() == found.get_clim()
        assert error.get_clim()[0] == -error.get_clim()[1] == pytest.approx(-np.abs(wanted[3]).max())
        assert error.get_cmap().name == SIGNED
        size = 100 * relative_errors(made, samples.outputs)[k]
        assert row[0].get_ylabel() == f"{['worst', 'median', 'best'][k]}\n{size:.3g} %"
    assert [axes.get_title() for axes in panels[:4]] == ["input a", "truth u", "prediction", "error"]
    assert figure.get_suptitle().startswith("darcy")


def test_lines_slices_and_channels():
    line = on_grid(16, inputs=2, outputs=2)
    made = noisy(line)
    figure = plot.fields_figure(line, made, channels=(1, 1))
    assert len(figure.axes) == 9
    truth, found = (each.get_ydata() for each in figure.axes[1].lines)
    assert np.array_equal(truth, line.outputs[0, 1])
    assert np.array_equal(found, made[0, 1])
    assert figure.axes[0].get_title() == "input b"
    solid = on_grid(5, 6, 7, n=1)
    figure = plot.fields_figure(solid, noisy(solid))
    assert np.array_equal(figure.axes[1].images[0].get_array(), solid.outputs[0, 0, 2])
    assert "middle slice" in figure.get_suptitle()


@pytest.mark.parametrize("cells", [True, False])
def test_meshes_show_their_points(cells, tmp_path):
    samples = on_mesh(cells)
    figure = plot.fields_figure(samples, noisy(samples))
    (drawn,) = figure.axes[1].collections
    assert np.allclose(drawn.get_array(), samples.outputs[0, 0])
    plot.save(figure, tmp_path / "m.png")
    assert min(png_size(tmp_path / "m.png")) > 400
    plot.save(plot.comparison_figure(samples, {"one": noisy(samples)}), tmp_path / "c.png")


def test_a_comparison_has_one_scale_a_row_and_a_strip_a_model():
    samples = on_grid(8, 8, n=5)
    made = {"good": noisy(samples), "bad": samples.outputs * 1.5}
    figure = plot.comparison_figure(samples, made)
    errors = relative_errors(made["good"], samples.outputs)
    rows = [axes for axes in figure.axes if axes.get_ylabel().startswith("sample")]
    order = np.argsort(errors)
    assert [axes.get_ylabel() for axes in rows] == [f"sample {order[-1]}", f"sample {order[2]}"]
    scales = {
        axes.images[0].get_clim() for axes in figure.axes if axes.get_title().startswith(("good", "bad"))
    }
    assert len(scales) == 2
    (strips,) = [axes for axes in figure.axes if axes.get_xscale() == "log"]
    assert [text.get_text() for text in strips.get_yticklabels()] == ["good", "bad"]
    assert np.array_equal(strips.lines[0].get_xdata(), errors)
    one = on_grid(16)
    assert len(plot.comparison_figure(one, {"lsm": noisy(one)}).axes) == 5
    with pytest.raises(ShapeError, match="predictions"):
        plot.comparison_figure(samples, {"short": made["good"][:3]})


def test_truths_of_a_figure_have_one_map_and_clipped_predictions_are_pointed_at():
    samples = on_grid(8, 8)
    signed = samples.outputs.copy()
    signed[1] -= 1.5  # one row alone has both signs
    samples = dataclasses.replace(samples, outputs=signed)
    made = signed.copy()
    made[2] *= 3
    figure = plot.fields_figure(samples, made)
    panels = [axes for axes in figure.axes if axes.images and axes.get_label() != "<colorbar>"]
    maps = {axes.images[0].get_cmap().name for row in range(3) for axes in panels[4 * row + 1 : 4 * row + 3]}
    assert maps == {SIGNED}
    assert {axes.images[0].get_cmap().name for axes in panels[::4]} != {SIGNED}  # inputs are positive
    extends = [axes.images[0].colorbar.extend for axes in panels]
    assert extends[2] == extends[9] == "neither"
    assert extends[10] == "max"
    figure = plot.comparison_figure(samples, {"one": made})
    assert figure.axes[0].images[0].get_cmap().name == SIGNED


def test_large_errors_are_factors():
    samples = on_grid(8, 8)
    figure = plot.fields_figure(samples, 61 * samples.outputs)
    assert figure.axes[0].get_ylabel() == "sample 0\n60 ×"
    figure = plot.comparison_figure(samples, {"one": 61 * samples.outputs})
    assert all("e+" not in text.get_text() for axes in figure.axes for text in axes.texts)


@pytest.mark.parametrize(
    ("inputs", "outputs", "wanted"),
    [
        (("u(t=0)",), ("u(t=0.5)", "u(t=1)"), (0, 1)),
        (("w[0]", "w[1]"), ("w[2]", "w[3]"), (1, 1)),
        (("a",), ("u", "v"), (0, 0)),
        (("a", "b"), ("u",), (0, 0)),
        ((), (), (0, 0)),
    ],
)
def test_of_trajectories_the_last_frame_is_shown(inputs, outputs, wanted):
    sizes = (3, len(inputs) or 1, 8), (3, len(outputs) or 1, 8)
    samples = Samples(np.ones(sizes[0]), np.ones(sizes[1]), Layout((np.arange(8) / 8,), inputs, outputs))
    assert last_frames(samples, sizes[1][1]) == wanted


def test_losses_within_a_decade_have_plain_labels():
    figure = plot.training_figure({"training": [(k, 0.9 - 0.05 * k) for k in range(8)]}, "loss")
    figure.draw_without_rendering()
    texts = [text.get_text() for text in figure.axes[0].get_yticklabels(which="both")]
    assert len(texts) > 2
    assert all(float(text) for text in texts if text)


def test_histograms_count_every_sample():
    errors = {"lsm": rng.random(50) + 0.01, "fno": rng.random(40) + 0.02}
    figure = plot.errors_figure(errors)
    above, below = figure.axes
    filled = [patch for patch in above.patches if patch.get_fill() and patch.get_alpha()]
    assert len(filled) == 2
    assert above.get_xscale() == below.get_xscale() == "log"
    assert [text.get_text() for text in above.get_legend().get_texts()] == ["lsm", "fno"]
    assert [line.get_xdata()[0] for line in above.lines] == [np.median(each) for each in errors.values()]
    plot.errors_figure({"exact": np.zeros(3)}).draw_without_rendering()  # no error, no ticks, no failure


@pytest.mark.parametrize("shape", [(32,), (16, 16), (8, 8, 8)])
def test_a_spectrum_holds_the_energy_of_a_wave_at_its_place(shape):
    x = np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij")[-1]
    wave = np.broadcast_to(3 * np.cos(2 * np.pi * 2 * x), (2, 1, *shape))
    energy = spectrum(wave)
    assert energy[2] == pytest.approx(4.5)
    assert energy.sum() == pytest.approx(4.5)
    figure = plot.spectra_figure(wave, {"lsm": 1.1 * wave})
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["truth", "lsm", "error of lsm"]
    assert figure.axes[0].lines[2].get_ydata()[1] == pytest.approx(0.045)


def test_a_roll_out_is_shown_beside_persistence(tmp_path):
    frames = 1 + rng.random((6, 7, 8, 8))
    samples = Samples(frames[:, :2], frames[:, 2:], Layout((np.arange(8) / 8,) * 2))
    made = 1.1 * samples.outputs[:, :4]
    figure = plot.rollout_figure(samples, {"lsm": made}, times=np.arange(5) / 5)
    still, ours = figure.axes[0].lines
    first = np.linalg.norm((frames[:, 1] - frames[:, 2]).reshape(6, -1), axis=1)
    first /= np.linalg.norm(frames[:, 2].reshape(6, -1), axis=1)
    assert still.get_ydata()[0] == pytest.approx(first.mean())
    assert np.allclose(ours.get_ydata(), 0.1)
    assert ours.get_xdata().tolist() == [0, 0.2, 0.4, 0.6]
    assert np.allclose(by_frame(made, samples.outputs), 0.1)
    with pytest.raises(ShapeError, match="lsm"):
        plot.rollout_figure(samples, {"lsm": np.zeros((6, 9, 8, 8))})
    plot.save(figure, tmp_path / "r.png")
    assert min(png_size(tmp_path / "r.png")) > 400
