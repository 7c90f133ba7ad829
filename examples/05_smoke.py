"""Smoke around an obstacle: run a case, watch the divergence, write a picture without a plotting library."""

import sys
from pathlib import Path

from neuralsolve.pde import SmokeCase, simulate
from neuralsolve.pde.render import strip


def main(out: str | None = None) -> float:
    case = SmokeCase(shape=(96, 96), dt=0.04, steps=30, obstacle_source="analytic")
    result = simulate(case, progress=show)
    print(result.explanation)
    print(result.timings.markdown())
    if out:  # binary portable pixmap: a header and the bytes
        image = strip([density for _, density in result.frames], result.solid)
        Path(out).write_bytes(b"P6 %d %d 255\n" % (image.shape[1], image.shape[0]) + image.tobytes())
    worst = max(record.relative_divergence for record in result.records)
    print(f"largest ||div u|| / ||div u*|| of all steps: {worst:.1e}")
    return worst


def show(step, total, record):
    if step % 10 == 0:
        print(
            f"step {step}/{total}: CFL {record.cfl:.1f}, |div u| {record.divergence_before:.1e} -> "
            f"{record.divergence_after:.1e} in {record.iterations} iterations, mass {record.mass:.4f}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:2])
