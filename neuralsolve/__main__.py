"""``python -m neuralsolve``."""

from neuralsolve.cli import main

if __name__ == "__main__":
    main()
