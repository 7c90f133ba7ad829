"""Speed of LSM beside a plain transcription of it, and beside the U-Net without its blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
from torch import Tensor, nn

from neuralsolve.bench.bars import BarRow, Bars, Settings, row
from neuralsolve.bench.plain_lsm import PlainLSM, same_weights
from neuralsolve.models.heap import keep_freed_memory
from neuralsolve.models.lsm import LatentSpectral
from neuralsolve.models.unet import UNet

SIZES = ((32, 64, 10), (32, 64, 20), (16, 43, 20))  # width, side, batch
ROUNDS = 7


def speed(settings: Settings) -> Iterator[BarRow]:
    """Time forward and backward of all, interleaved, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    for width, side, batch in SIZES:
        if settings.quick:
            width, side, batch = 8, 16, 2
        generator = torch.Generator().manual_seed(905)
        x = torch.randn(batch, 1, side, side, generator=generator)
        with torch.random.fork_rng():
            torch.manual_seed(905)
            nets = {"plain": PlainLSM(1, 1, width, side), "lsm": LatentSpectral(2, 1, 1, width)}
            nets["unet"] = UNet(2, 1, 1, width)
        same_weights(nets["plain"], nets["lsm"])  # type: ignore[arg-type]
        problem, seconds = f"width {width}, {side}^2, batch {batch}", _seconds(nets, x)
        ours = median(seconds["lsm"])
        for other, bars in (("plain", Bars(2.0, at_least=True)), ("unet", None)):
            ratio = [a / b for a, b in zip(seconds[other], seconds["lsm"], strict=True)]
            words = "plain transcription / LSM" if other == "plain" else "the U-Net without blocks / LSM"
            base = {"baseline": other, "baseline_s": median(seconds[other]), "solve_s": ours}
            values = [median(ratio)]
            yield row(
                "speed", problem, words, "x", bars, values, repeats=ROUNDS, note="one thread, CPU s", **base
            )
        yield row("speed", problem, "difference of outputs, relative", "", Bars(1e-5), [_apart(nets, x)])
        if settings.quick:
            break
    torch.set_num_threads(threads)


def _seconds(nets: dict[str, nn.Module], x: Tensor) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in nets}
    for round_ in range(ROUNDS + 1):
        for name, net in nets.items():
            taken = _step(net, x)
            if round_:
                found[name].append(taken)
    return found


def _step(net: Callable[[Tensor], Tensor], x: Tensor) -> float:
    started = time.process_time()
    net(x).square().mean().backward()
    return time.process_time() - started


def _apart(nets: dict[str, nn.Module], x: Tensor) -> float:
    with torch.no_grad():
        a, b = (nets[name].eval()(x) for name in ("plain", "lsm"))
    return float((a - b).abs().max() / a.abs().max())
