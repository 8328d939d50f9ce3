"""Describe the machine, and measure how fast it multiplies matrices: one JSON object.

    python benchmarks/parts/gemm_rate.py [--seconds 1.0]

Uses `torch.mm`, on a CPU in float32 with all cores, on a GPU in bfloat16, and takes the best time of each shape. `flops`
is the rate (operations per second) of the fastest shape, a square; the other shapes are layers of a small model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ON_CPU = ((2048, 2048, 2048), (512, 576, 1536), (512, 1536, 576))  # rows, inner, columns; the last two: SmolLM2-135M
ON_GPU = ((8192, 8192, 8192), (8192, 2048, 8192))
LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")


def rate(shape: tuple[int, int, int], device: str, dtype: torch.dtype, seconds: float) -> float:
    """Floating-point operations per second of the fastest of many products of this shape."""
    rows, inner, columns = shape
    one = torch.randn(rows, inner, device=device, dtype=dtype)
    other = torch.randn(inner, columns, device=device, dtype=dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(one, other)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * rows * inner * columns / best


def machine() -> dict[str, Any]:
    """Processor, its vector instructions, threads and versions."""
    facts: dict[str, str] = {}
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    flags = [flag for flag in facts.get("flags", "").split() if flag.startswith(("avx", "amx", "fma", "f16c"))]
    return {
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "vector_flags": sorted(flags),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "torch_threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per shape")
    arguments = parser.parse_args()
    device, dtype = "cpu", torch.float32
    shapes: tuple[tuple[int, int, int], ...] = ON_CPU
    if torch.cuda.is_available():
        device, dtype, shapes = "cuda", torch.bfloat16, ON_GPU
    rates = {"x".join(map(str, shape)): rate(shape, device, dtype, arguments.seconds) for shape in shapes}
    print(json.dumps(machine() | {"dtype": str(dtype), "shapes": rates, "flops": max(rates.values())}))


if __name__ == "__main__":
    main()
