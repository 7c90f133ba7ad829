"""Networks compute where their input lies: nothing is made on, or read from, another device.

Shown on the device "meta", which holds no numbers: an operation that meets a tensor of the CPU there, or asks
for a number, is an error.
"""

from __future__ import annotations

import contextlib

import pytest
import torch

from neuralsolve.kernels import use
from neuralsolve.models import S4, S4D, S5, SequenceModel
from neuralsolve.models.direction import DirectionNet
from neuralsolve.models.networks import make_network
from neuralsolve.models.npsdo import StencilNet

FIELDS = {"dim": 2, "inputs": 1, "outputs": 1}
NETS = {  # what makes the network, and the shapes of its inputs
    "lsm": (lambda: make_network("lsm", **FIELDS, width=16, levels=2), [(2, 1, 16, 16)]),
    "unet": (lambda: make_network("unet", **FIELDS, width=8, levels=2), [(2, 1, 13, 16)]),
    "transolver": (
        lambda: make_network("transolver", **FIELDS, width=16, layers=1, slices=8),
        [(2, 1, 9, 11)],
    ),
    "lsm-points": (
        lambda: make_network("lsm-points", dim=2, inputs=3, outputs=1, width=16),
        [(2, 3, 70), (2, 70, 2)],
    ),
    "fno-memory": (lambda: make_network("fno-memory", dim=1, inputs=1, outputs=1, modes=4), [(2, 5, 16)]),
    "S4": (lambda: S4(3, state=8), [(2, 5, 3)]),
    "S4D": (lambda: S4D(3, state=8, bidirectional=True), [(2, 5, 3)]),
    "S5": (lambda: S5(3, state=8, bidirectional=True), [(2, 5, 3)]),
    "sequence": (lambda: SequenceModel(1, 10, channels=8, layers=2, state=8), [(4, 20, 1)]),
    "dcdm": (lambda: DirectionNet(3), [(1, 1, 8, 8, 8)]),
    "npsdo": (lambda: StencilNet(2, 3), [(1, 1, 16, 12), (1, 1, 16, 12)]),
}


@pytest.mark.parametrize("name", NETS)
def test_networks_make_nothing_elsewhere(name, monkeypatch):
    monkeypatch.setattr("torch.autocast", lambda *_, **__: contextlib.nullcontext())  # knows no "meta"
    make, shapes = NETS[name]
    with use("reference"):
        y = make().to("meta")(*(torch.empty(shape, device="meta") for shape in shapes))
        y = y[0] if isinstance(y, tuple) else y
        assert y.device.type == "meta"
        y.square().sum().backward()
