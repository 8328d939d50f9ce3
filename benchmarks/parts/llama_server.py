"""llama.cpp's server on a port, until this process is terminated: a GGUF file, and copies of an adapter beside it.

    python benchmarks/parts/llama_server.py FILE --port N [--lora FILE --copies N] [--slots 16] [--context 1024]

`--context` is for each slot. The adapters are loaded but not applied: each request selects its own.
"""

from __future__ import annotations

import argparse
import threading

import torch
import xllamacpp


def main() -> None:
    """Start the server and wait."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--lora")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--context", type=int, default=1024)
    options = parser.parse_args()
    settings = xllamacpp.CommonParams()
    settings.model.path = options.file
    settings.n_parallel, settings.n_ctx, settings.n_gpu_layers = options.slots, options.slots * options.context, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
    settings.port, settings.use_jinja, settings.verbosity = options.port, True, -1
    if options.lora is not None:
        settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(options.lora, 0.0) for _ in range(options.copies)]
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
