"""How A x = b is solved: methods, the one iteration loop, the automatic choice, the adjoint."""
