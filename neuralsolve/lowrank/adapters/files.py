"""Adapters in files: what was trained, alone, beside what tells the weights that it belongs to.

A safetensors file. Tensors: `WEIGHT.FIELD` of what is trained, `also.PATH` of what is trained as it is, and
of buffers that the training has moved, such as the statistics of batch normalisation. The metadata hold the
method, its options, and of every weight the SHA-256 of W0 and marks of the frozen factors. Those are made
again from W0 at loading; where singular values lie so close that another machine turns their vectors, the
marks tell it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuralsolve.errors import FormatError, InputError
from neuralsolve.lowrank.adapters.attach import M, put_on
from neuralsolve.lowrank.adapters.delta import Delta
from neuralsolve.lowrank.adapters.methods import make_adapter, name_of
from neuralsolve.lowrank.adapters.record import base_of, deltas_of, record_of, refuse_attached
from neuralsolve.lowrank.adapters.removal import detach

KEY, VERSION = "adapter", 1
TURNED = 1e-3  # of the size of a factor: marks further apart are of other vectors


def save_adapter(model: nn.Module, path: Path | str, *, bases: bool = False) -> None:
    """Write what an adapter has learned, in one step; the weights of the model are not in it.

    Parameters
    ----------
    model : with an adapter
    path : of the file, `.safetensors`
    bases : whether frozen factors are written too, which `load_adapter` makes again from the weights
        otherwise; those of LoRASB, which come from a gradient, are written always

    Raises
    ------
    OptionError
        No adapter is attached.
    FileNotFoundError
        No such folder.

    Examples
    --------
    >>> from neuralsolve.lowrank.adapters import LoRA, attach
    >>> net = attach(nn.Linear(8, 8), LoRA(rank=2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "net.safetensors"
    ...     save_adapter(net, path)
    ...     again = load_adapter(detach(net), path)
    >>> again is net
    True
    """
    from safetensors.torch import save_file

    record, deltas = record_of(model), deltas_of(model)
    tensors = {f"also.{name}": p for name, p in model.named_parameters() if name in record.also}
    buffers = {name: b for name, b in model.named_buffers() if name in record.buffers}
    moved = {name for name, b in buffers.items() if not torch.equal(b, record.buffers[name].to(b.device))}
    tensors |= {f"also.{name}": buffers[name] for name in sorted(moved)}
    weights: dict[str, Any] = {}
    for name, delta in deltas.items():
        frozen = dict(delta.named_buffers())
        kept = list(frozen) if bases else [field for field in record.adapter.saved if field in frozen]
        tensors |= {f"{name}.{field}": p for field, p in delta.named_parameters()}
        tensors |= {f"{name}.{field}": frozen[field] for field in kept}
        marks = {field: mark(buffer) for field, buffer in frozen.items() if field not in kept}
        weights[name] = {"sha256": fingerprint(base_of(model, name)), "marks": marks}
    options = dataclasses.asdict(record.adapter)
    facts = {"version": VERSION, "method": name_of(record.adapter), "options": options, "weights": weights}
    plain = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    path = Path(path)
    if not path.parent.is_dir():
        msg = f"no folder {path.parent} for {path.name}; make it first: Path.mkdir(parents=True)"
        raise FileNotFoundError(msg)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
    os.close(handle)
    try:
        save_file(plain, temporary, {KEY: json.dumps(facts)})
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def load_adapter(model: M, path: Path | str) -> M:
    """Attach the adapter of a file to the model that it was trained on; return the model.

    Raises
    ------
    FileNotFoundError
    FormatError
        No file of an adapter; other weights than those it was trained on.
    OptionError
        An adapter is attached already.
    """
    refuse_attached(model)
    tensors, facts = _read(Path(path))
    try:
        adapter = make_adapter(facts["method"], **facts["options"])
        weights = {str(name): (w["sha256"], dict(w["marks"])) for name, w in facts["weights"].items()}
    except (KeyError, TypeError, AttributeError, InputError) as error:
        msg = f"{path} holds no adapter that this package knows ({error})"
        raise FormatError(msg) from None
    named = dict(model.named_parameters())
    for name, (sha256, _) in weights.items():
        if name not in named or fingerprint(named[name]) != sha256:
            there = "is not the weight that the adapter was trained on" if name in named else "is missing"
            msg = f"{path}: {name} {there}; load the model of that training first, without other adapters"
            raise FormatError(msg)
    put_on(model, adapter, None)
    try:
        _fill(model, tensors, {name: marks for name, (_, marks) in weights.items()}, Path(path))
    except FormatError:
        detach(model)
        raise
    return model


def _fill(model: nn.Module, tensors: dict[str, Tensor], marks: dict[str, Any], path: Path) -> None:
    deltas, record = deltas_of(model), record_of(model)
    if deltas.keys() != marks.keys():
        msg = f"{path} adapts {sorted(marks)[:3]}, its options {sorted(deltas)[:3]} of this model"
        raise FormatError(msg)
    places = {f"also.{name}": p for name, p in model.named_parameters() if name in record.also}
    places |= {f"also.{name}": b for name, b in model.named_buffers() if name in record.buffers}
    for name, delta in deltas.items():
        held = dict(delta.named_parameters()) | dict(delta.named_buffers())
        places |= {f"{name}.{field}": tensor for field, tensor in held.items()}
        _recognise(delta, marks[name], f"{path}: {name}")
    for name, tensor in tensors.items():
        if name not in places or places[name].shape != tensor.shape:
            msg = f"{path}: {name} {tuple(tensor.shape)} has no place in this model"
            raise FormatError(msg)
    with torch.no_grad():
        for name, tensor in tensors.items():
            places[name].copy_(tensor)


def _recognise(delta: Delta, marks: dict[str, list[float]], where: str) -> None:
    for field, known in marks.items():
        again = mark(delta.get_buffer(field))
        if any(
            abs(one - other) > TURNED * max(known[2], 1e-30) for one, other in zip(known, again, strict=True)
        ):
            msg = f"{where}.{field} came out otherwise than in the training; save_adapter(..., bases=True)"
            raise FormatError(msg)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        msg = f"no file {path}; one that save_adapter wrote is needed"
        raise FileNotFoundError(msg)
    try:
        with safe_open(str(path), "pt") as file:
            facts = json.loads((file.metadata() or {})[KEY])
            if facts["version"] != VERSION:
                msg = f"{path} is of version {facts['version']}; this package reads {VERSION}"
                raise FormatError(msg)
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError, RecursionError) as error:
        msg = f"{path} is no file of an adapter ({error}); one that save_adapter wrote is needed"
        raise FormatError(msg) from None


def fingerprint(tensor: Tensor) -> str:
    """Return the SHA-256 of the bytes of a tensor."""
    plain = tensor.detach().cpu().contiguous().resolve_conj()
    return hashlib.sha256(plain.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


def mark(tensor: Tensor) -> list[float]:
    """Return a product with a fixed vector, real and imaginary part, and the norm."""
    flat = tensor.detach().cpu().flatten().to(torch.complex128)
    found = (flat * torch.cos(torch.arange(1, len(flat) + 1, dtype=torch.float64))).sum()
    return [float(found.real), float(found.imag), float(flat.abs().square().sum().sqrt())]
