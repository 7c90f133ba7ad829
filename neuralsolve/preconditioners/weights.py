"""Weights and checkpoints on disk: safetensors alone, never a pickle."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from neuralsolve.errors import FormatError, OptionError, nearest

SHIPPED = Path(__file__).parents[1] / "weights"
SUFFIX = ".safetensors"
LONGEST = 255  # characters of a name of a file
TAKEN_BY = {"dcdm": "NeuralDirection", "npsdo": "NeuralDirection", "cycle": "NeuralMultigrid"}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file and its metadata.

    Raises
    ------
    FileNotFoundError
    FormatError
        Another format, a truncated file.
    """
    if not path.is_file():
        msg = f"no file {path}; a safetensors file that `neuralsolve train` wrote is needed"
        raise FileNotFoundError(msg)
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def network_of(path: Path) -> str:
    """Return which network the metadata of a file of weights name, of `TAKEN_BY`; "" for none of them."""
    return _network_of(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _network_of(path: Path, changed: int) -> str:
    with _opened(path) as file:
        try:
            network = json.loads((file.metadata() or {})["architecture"])["network"]
        except (KeyError, TypeError, ValueError, RecursionError):
            return ""
    return network if isinstance(network, str) and network in TAKEN_BY else ""


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        msg = f"{path}: no safetensors file ({error}); weights are read from the files of `neuralsolve train`"
        raise FormatError(msg) from None


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file in one step: on failure an older one stays as it is.

    Raises
    ------
    OSError
        A full disk, a folder that takes no files.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    name = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=SUFFIX, dir=path.parent)
        os.close(handle)
        save_file(
            {key: value.detach().contiguous().clone() for key, value in tensors.items()}, name, metadata
        )
        os.chmod(name, 0o644)
        os.replace(name, path)
    except (OSError, SafetensorError) as error:
        raise not_written(path, error) from None
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


def not_written(path: Path, error: Exception) -> OSError:
    """Return the error to raise for a file that cannot be written."""
    cause = getattr(error, "strerror", None) or error
    kept = "; the file that is there stays as it is" if path.exists() else ""
    return OSError(f"{path} cannot be written ({cause}){kept}; free some space, or name another folder")


def shipped(recipe: str | None = None) -> dict[str, Path]:
    """Return the weights that come with the package, of one recipe or of all, name -> file.

    The folder holds other files too, matrices of `ssm.ptd_legs`: those are no recipe's.
    """
    takers = {path: TAKEN_BY.get(network_of(path)) for path in sorted(SHIPPED.glob(f"*{SUFFIX}"))}
    return {path.stem: path for path, taker in takers.items() if taker and recipe in (None, taker)}


def weights_file(name_or_path: str | os.PathLike[str], recipe: str) -> Path:
    """Return the file of weights given by name, as in `shipped`, or by path.

    Parameters
    ----------
    recipe : "NeuralDirection" or "NeuralMultigrid", which wants them

    Raises
    ------
    OptionError
        A name that none of the shipped weights has; weights that another recipe takes.
    FileNotFoundError
        A path that leads nowhere.
    FormatError
        No safetensors file.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        msg = f"weights are {name_or_path!r}; a name of weights that ship, or the path of a file, is needed"
        raise OptionError(msg)
    text = os.fspath(name_or_path)
    path = shipped().get(text, Path(text))
    if len(path.name) <= LONGEST and path.is_file():
        network = network_of(path)
        if TAKEN_BY.get(network, recipe) == recipe:
            return path
        msg = (
            f"the weights {text!r} are of network {network!r}, which ns.{TAKEN_BY[network]} takes; "
            f"ns.{recipe} takes {', '.join(shipped(recipe))}, or the path of a file of its own kind"
        )
        raise OptionError(msg)
    known, text = shipped(recipe), text[:LONGEST]
    if path.suffix or path.name != text:
        msg = f"no file {path}; name one of {', '.join(known)}, or a file that `neuralsolve train` wrote"
        raise FileNotFoundError(msg)
    msg = f"no weights {text!r}{nearest(text, known)}; or give the path of a {SUFFIX} file"
    raise OptionError(msg)
