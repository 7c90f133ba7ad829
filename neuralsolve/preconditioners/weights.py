"""Weights and checkpoints on disk: safetensors alone, never a pickle."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from torch import Tensor

from neuralsolve.errors import FormatError, OptionError, nearest

SHIPPED = Path(__file__).parents[1] / "weights"
SUFFIX = ".safetensors"


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file and its metadata.

    Raises
    ------
    FileNotFoundError
    FormatError
        Another format, a truncated file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        msg = f"no file {path}; a safetensors file that `neuralsolve train` wrote is needed"
        raise FileNotFoundError(msg)
    try:
        with safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        msg = f"{path}: no safetensors file ({error}); weights are read from the files of `neuralsolve train`"
        raise FormatError(msg) from None


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file in one step: on failure an older one stays as it is."""
    from safetensors.torch import save_file

    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=SUFFIX, dir=path.parent)
    os.close(handle)
    try:
        save_file(
            {key: value.detach().contiguous().clone() for key, value in tensors.items()}, name, metadata
        )
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def shipped() -> dict[str, Path]:
    """Return the weights that come with the package, name -> file."""
    return {path.stem: path for path in sorted(SHIPPED.glob(f"*{SUFFIX}"))}


def weights_file(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of weights given by name, as in `shipped`, or by path.

    Raises
    ------
    OptionError
        A name that none of the shipped weights has.
    FileNotFoundError
        A path that leads nowhere.
    """
    text, known = os.fspath(name_or_path), shipped()
    if text in known:
        return known[text]
    path = Path(text)
    if path.is_file():
        return path
    if path.suffix or path.name != text:
        msg = f"no file {path}; name one of {', '.join(known)}, or a file that `neuralsolve train` wrote"
        raise FileNotFoundError(msg)
    msg = f"no weights {text!r}{nearest(text, known)}; or give the path of a {SUFFIX} file"
    raise OptionError(msg)
