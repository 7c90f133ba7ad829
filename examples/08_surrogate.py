"""A network beside the solver: data by multigrid, a model of them, an exact answer from its guess.

The equation that made the data is the object that judges a prediction and that solves for the exact answer.
"""

import numpy as np

import neuralsolve as ns
from neuralsolve.models import FieldTraining, train
from neuralsolve.models.resampling import Resampling
from neuralsolve.pde.darcy import Darcy

FINE, STRIDE = 121, 8  # the network sees 16 x 16 of 121 x 121 vertices


def main():
    """Make data, train, predict; start the solver from the prediction, and from zero."""
    coarse = Darcy(grid=FINE, stride=STRIDE)
    data = coarse.samples(range(320), seed=905)
    options = FieldTraining(epochs=20, batch=20, learning_rate=3e-3, symmetry="square")
    network = {"name": "lsm", "width": 16, "levels": 2}
    model = train(data, network=network, options=options, normaliser="pointwise")

    equation = Darcy(grid=FINE)
    a = equation.permeability(4711, seed=906)  # of another seed than the data
    A, b = equation.operator(a), equation.right_side(a)
    exact = ns.solve(A, b, ns.CG(), M=ns.Multigrid(), rtol=1e-12).x

    axes = (np.linspace(0, 1, FINE),) * 2
    finer = Resampling(model.layout.axes, axes, model.layout.boundary)
    guess = finer.of_array(model.predict(a[None, None, ::STRIDE, ::STRIDE]))[0, 0, 1:-1, 1:-1].ravel()
    steps = ns.solve(A, b, ns.CG(), M=ns.Multigrid(), x0=guess, maxiter=2, throw=False)
    result = ns.solve(A, b, ns.CG(), M=ns.Multigrid(), x0=guess)

    def error(x):
        return np.linalg.norm(x - exact) / np.linalg.norm(exact)

    print(f"the network alone: relative error {error(guess):.2e}")
    bound = equation.bound(a, steps.x)
    print(f"and two iterations of CG with multigrid: {error(steps.x):.2e}, surely at most {bound:.2e}")
    print(f"and {result.iterations}: {error(result.x):.2e}, residual {result.residual_norms[-1]:.1e}")
    return error(steps.x) / error(guess)


if __name__ == "__main__":
    print(f"error left by two iterations: {main():.4f} of the network's")
