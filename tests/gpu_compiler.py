"""Compile recorded launches of Triton kernels for sm_90, which takes no GPU; run as a script by a test.

Reads a list of launches from standard input: (module, kernel, types, constants, divisible, options) each, and
writes what went wrong, one line a kernel. Where Triton interprets nothing can be compiled, hence a process of
its own.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGET = GPUTarget("cuda", 90, 32)


def compiled(
    module: str,
    name: str,
    types: dict[str, str],
    constants: dict[str, Any],
    divisible: list[int],
    options: dict[str, Any],
) -> Any:
    """Return the compiled kernel of one launch."""
    kernel = getattr(importlib.import_module(module), name)
    attributes = {(i,): [["tt.divisibility", 16]] for i in divisible}
    known = {key: tuple(v) if isinstance(v, list) else v for key, v in constants.items()}
    source = ASTSource(kernel, signature=types, constexprs=known, attrs=attributes)
    return triton.compile(source, target=TARGET, options={"enable_fp_fusion": True} | options)


def main() -> None:
    for launch in json.load(sys.stdin):
        try:
            result = compiled(*launch)
        except Exception as error:
            print(launch[0].rsplit(".", 1)[1], launch[1], launch[3], repr(error)[-500:], flush=True)
            continue
        if "depot" in result.asm["ptx"]:
            print(
                launch[0].rsplit(".", 1)[1], launch[1], launch[3], "keeps arrays in local memory", flush=True
            )


if __name__ == "__main__":
    main()
