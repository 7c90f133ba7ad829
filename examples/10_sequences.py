"""A state-space layer that remembers without ringing, as a whole and sample by sample.

The usual start of S4D leaves out a part of HiPPO-LegS and resonates: a sinusoid of the right frequency comes
out 200 times too loud. "ptd", the default, starts from a diagonal neighbour of HiPPO-LegS that does not. What
a layer makes of a whole sequence it also makes step by step, for a loop that has one sample at a time, such
as a simulation.
"""

import numpy as np
import torch

from neuralsolve.models import S4D, SequenceModel
from neuralsolve.ssm.hippo import normal_frequencies
from neuralsolve.ssm.starts import start
from neuralsolve.ssm.transfer import diagonal_transfer, hippo_transfer


def gain(name, frequency, n=32):
    """Return |G| of a start at a frequency, for the first state of HiPPO-LegS as the output."""
    system = start(name, n)
    C = system.V.numpy()[0]  # of the real read-out (1, 0, 0, ...)
    return float(abs(diagonal_transfer(system.eigenvalues, system.B, C, [frequency], system.weights))[0])


def main():
    """Return the difference between a whole sequence and its samples one by one."""
    spike = float(normal_frequencies(32).max())
    exact = abs(hippo_transfer(32, np.eye(32)[0], [spike]))[0]
    for name in ("legs", "ptd"):
        print(f"start {name!r}: {gain(name, spike) / exact:.2f} times HiPPO's gain at t = {spike:.1f}")
    torch.manual_seed(7)
    layer, u = S4D(channels=4, state=32).double(), torch.randn(1, 500, 4, dtype=torch.float64)
    with torch.no_grad():
        whole, state, samples = layer(u), layer.initial_state(1), []
        for sample in u.unbind(1):
            y, state = layer.step(sample, state)
            samples.append(y)
    model = SequenceModel(4, 10, channels=32, layers=2, state=32)
    print(f"a model of two layers: {tuple(u.shape)} -> {tuple(model(u.float()).shape)}")
    return float((torch.stack(samples, 1) - whole).abs().max() / whole.abs().max())


if __name__ == "__main__":
    print(f"difference of both, relative: {main():.1e}")
