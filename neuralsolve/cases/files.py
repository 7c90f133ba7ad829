"""Finding case files and reading them."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from neuralsolve.errors import FormatError, OptionError, nearest
from neuralsolve.io.files import broken, existing_file

MAX_CASE_BYTES = 2**20


def case_folders() -> list[Path]:
    """Return the folders that hold named cases: the package's own, and `problems` of an editable checkout."""
    package = Path(__file__).parents[1]
    checkout = package.parent / "problems" if (package.parent / "pyproject.toml").is_file() else None
    return [folder for folder in (package / "problems", checkout) if folder is not None and folder.is_dir()]


def list_cases() -> dict[str, Path]:
    """Return the named cases, name -> file.

    Examples
    --------
    >>> "smoke_bunny" in list_cases()
    True
    """
    found: dict[str, Path] = {}
    for folder in case_folders():
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def find_case(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a case given by path, or by bare name as in `list_cases`.

    Raises
    ------
    OptionError
        A bare name that no case has.
    FileNotFoundError
        A path that leads nowhere.
    """
    path = Path(name_or_path)
    if path.exists():
        return path
    if path.name == str(name_or_path) and path.suffix in ("", ".toml"):
        named = list_cases()
        if path.stem in named:
            return named[path.stem]
        msg = f"no file and no case {str(name_or_path)!r}{nearest(path.stem, named)}"
        raise OptionError(msg)
    msg = f"no file {path}"
    raise FileNotFoundError(msg)


def load_case(name_or_path: str | os.PathLike[str]) -> Any:
    """Read a case file.

    Returns
    -------
    A `neuralsolve.cases.schema` object with a `problem` method; for ``kind = "smoke"`` a `SmokeCase`, for
    ``kind = "train"`` a `TrainCase` or a `CycleCase`, for ``kind = "sequence"`` a `SequenceCase`, for
    ``kind = "control"`` a `ControlCase`.

    Raises
    ------
    OptionError
        An unknown kind, key or value; the nearest known name is suggested.
    FormatError
        No valid TOML, or far too long for a case.
    """
    path = existing_file(find_case(name_or_path), (".toml",))
    if path.stat().st_size > MAX_CASE_BYTES:
        raise broken(path, f"{path.stat().st_size} bytes", f"a case of at most {MAX_CASE_BYTES}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also text that is not UTF-8
        raise broken(
            path, f"no valid TOML ({error})", "key = value lines; docs/cases.md has the schema"
        ) from None
    from neuralsolve.cases.schema import KINDS

    kind = content.pop("kind", None)
    if kind == "smoke":
        return _smoke_case(path, content)
    if kind == "train":
        return _training(path, content)
    if kind == "sequence":
        from neuralsolve.cases.sequence import SequenceCase

        return validated(path, SequenceCase, content | {"path": path})
    if kind == "control":
        from neuralsolve.cases.control import ControlCase

        return validated(path, ControlCase, content | {"path": path})
    if kind not in KINDS:
        known = [*KINDS, "smoke", "train", "sequence", "control"]
        msg = f"{path}: kind is {kind!r}{nearest(str(kind), known)} (kind = {' | '.join(known)})"
        raise OptionError(msg)
    return validated(path, KINDS[kind], content | {"path": path})


def _training(path: Path, content: dict[str, Any]) -> Any:
    from neuralsolve.cases import labels
    from neuralsolve.cases.cycle import CycleCase
    from neuralsolve.cases.fields import FieldCase
    from neuralsolve.cases.training import TrainCase
    from neuralsolve.models.networks import NETWORKS

    kinds: dict[str, Any] = {"dcdm": TrainCase, "npsdo": TrainCase, "cycle": CycleCase}
    kinds |= dict.fromkeys(NETWORKS, FieldCase) | dict.fromkeys(labels.NETWORKS, labels.LabelCase)
    network = str(content.get("network", "dcdm"))  # the schema tells that it is missing
    if network not in kinds:
        msg = f"{path}: network = {network!r}{nearest(network, kinds)}"
        raise OptionError(msg)
    return validated(path, kinds[network], content | {"path": path})


def _smoke_case(path: Path, content: dict[str, Any]) -> Any:
    from pydantic import TypeAdapter, ValidationError

    from neuralsolve.pde.smoke_case import SmokeCase

    known = [field.name for field in dataclasses.fields(SmokeCase)]
    for key in content:
        if key not in known:
            raise _unknown_key(path, key, known)
    try:
        return TypeAdapter(SmokeCase).validate_python(content)
    except ValidationError as error:
        raise _first_complaint(path, error, None) from None


def validated(path: Path, model: Any, content: dict[str, Any]) -> Any:
    """Return a table of a schema; what pydantic complains of becomes one line that names the file."""
    from pydantic import ValidationError

    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _first_complaint(path, error, model) from None


def _first_complaint(path: Path, error: Any, model: Any) -> OptionError:
    """Turn pydantic's first complaint into one line: where, what was found, what is needed."""
    from neuralsolve.cases.schema import known_keys, toml_path

    complaints = error.errors(include_url=False)
    # a misspelt key is often complained of twice, as unknown and as missing: the first says more
    complaint = next((c for c in complaints if c["type"] == "extra_forbidden"), complaints[0])
    *above, last = complaint["loc"] or ("",)
    if complaint["type"] == "extra_forbidden":
        where = ".".join([*toml_path(model, above), str(last)])
        return _unknown_key(path, where, known_keys(model, above), str(last))
    where = ".".join(toml_path(model, complaint["loc"]))
    if complaint["type"] == "value_error":
        what = f"{where}: " if where else ""
        return OptionError(f"{path}: {what}{complaint['ctx']['error']}")
    if complaint["type"] == "missing":
        return OptionError(f"{path}: {where} is missing; {model.page} has the schema")
    given = repr(complaint["input"])[:100]
    return OptionError(f"{path}: {where} = {given}: {complaint['msg']}")


def _unknown_key(path: Path, where: str, known: Iterable[str], key: str | None = None) -> OptionError:
    return OptionError(f"{path}: unknown key {where!r}{nearest(key or where, known)}")


def referenced_file(case_path: Path, name: str) -> Path:
    """Return a file that a case names: absolute, beside the case, or in ``$NEURALSOLVE_DATA``.

    Raises
    ------
    FormatError
        ``$NEURALSOLVE_DATA`` is named but not set, or another variable is named.
    """
    data = os.environ.get("NEURALSOLVE_DATA", "")
    if name.startswith("$NEURALSOLVE_DATA/"):
        if not data:
            msg = f"{case_path} needs {name}; set NEURALSOLVE_DATA to the folder of real data"
            raise FormatError(msg)
        return Path(data) / name.removeprefix("$NEURALSOLVE_DATA/")
    if "$" in name:
        msg = f"{case_path}: {name!r} names a variable; only $NEURALSOLVE_DATA/... at the start is known"
        raise FormatError(msg)
    return case_path.parent / name
