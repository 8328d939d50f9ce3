"""llama.cpp's own interface in C, as the library inside the package xllamacpp exports it.

xllamacpp 2026.10 wraps llama.cpp's server alone, and cyllama 0.2.18 has no evaluation callback, through which rows of one
pass can have different adapters. The layouts of structures, which llama.cpp may change, are compared with what the library
itself writes before anything is computed. Remove when one of the two wraps contexts with their callback.
"""

from __future__ import annotations

import functools
import importlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_byte,
    c_char,
    c_char_p,
    c_float,
    c_int,
    c_int8,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_void_p,
)
from typing import Any

from finetune.errors import InputError

RESERVE = 256  # bytes behind a structure that is passed by value: that of another release may be longer
OPERATIONS = 256  # more than ggml has
FLOAT16, FLASH = 1, 1  # of llama.cpp: GGML_TYPE_F16 and LLAMA_FLASH_ATTN_TYPE_ENABLED
ERROR = 4  # of llama.cpp: GGML_LOG_LEVEL_ERROR

OnNode = CFUNCTYPE(c_bool, c_void_p, c_bool, c_void_p)  # (tensor, whether it is asked for, user data)
OnLog = CFUNCTYPE(None, c_int, c_char_p, c_void_p)


class ModelParams(Structure):
    """llama_model_params"""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int),
        ("load_mode", c_int),
        ("lazy_mode", c_int),
        ("main_gpu", c_int32),
        *((name, c_void_p) for name in ("tensor_split", "progress_callback", "progress_data", "kv_overrides")),
        *((name, c_bool) for name in ("vocab_only", "check_tensors", "use_extra_bufts", "no_host", "no_alloc")),
        ("load_mtp", c_bool),
        ("reserve", c_byte * RESERVE),
    )


class ContextParams(Structure):
    """llama_context_params"""

    _fields_ = (
        *((name, c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq", "n_outputs_max")),
        ("n_outputs_max_per_seq", c_uint32),
        *((name, c_int32) for name in ("n_threads", "n_threads_batch")),
        *((name, c_int) for name in ("ctx_type", "rope_scaling_type", "pooling_type", "attention_type")),
        ("flash_attn_type", c_int),
        *((name, c_float) for name in ("rope_freq_base", "rope_freq_scale", "yarn_ext_factor", "yarn_attn_factor")),
        *((name, c_float) for name in ("yarn_beta_fast", "yarn_beta_slow")),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", OnNode),
        ("cb_eval_user_data", c_void_p),
        *((name, c_int) for name in ("type_k", "type_v")),
        ("moe_cache_size", c_size_t),
        *((name, c_void_p) for name in ("abort_callback", "abort_callback_data")),
        *((name, c_bool) for name in ("embeddings", "offload_kqv", "no_perf", "op_offload", "swa_full", "kv_unified")),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
        ("reserve", c_byte * RESERVE),
    )


class Batch(Structure):
    """llama_batch"""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", c_void_p),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


class GgmlTensor(Structure):
    """ggml_tensor; `ne` are its sizes, the innermost first."""

    _fields_ = (
        ("type", c_int),
        ("buffer", c_void_p),
        ("ne", c_int64 * 4),
        ("nb", c_size_t * 4),
        ("op", c_int),
        ("op_params", c_int32 * 16),
        ("flags", c_int32),
        ("src", c_void_p * 10),
        ("view_src", c_void_p),
        ("view_offs", c_size_t),
        ("data", c_void_p),
        ("name", c_char * 64),
    )


class _GgmlParams(Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


# What llama.cpp writes into its structures when asked for the defaults.
MODEL_DEFAULTS = {"n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1, "main_gpu": 0}
MODEL_DEFAULTS |= {"vocab_only": False, "check_tensors": False, "use_extra_bufts": True, "no_host": False}
CONTEXT_DEFAULTS = {"n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_rs_seq": 0, "n_outputs_max": 0}
CONTEXT_DEFAULTS |= {"n_outputs_max_per_seq": 1, "n_threads": 4, "n_threads_batch": 4, "ctx_type": 0}
CONTEXT_DEFAULTS |= {"rope_scaling_type": -1, "pooling_type": -1, "attention_type": -1, "flash_attn_type": -1}
CONTEXT_DEFAULTS |= {"rope_freq_base": 0, "yarn_ext_factor": -1, "yarn_beta_slow": -1, "defrag_thold": -1}
CONTEXT_DEFAULTS |= {"type_k": FLOAT16, "type_v": FLOAT16, "moe_cache_size": 0, "embeddings": False, "no_perf": True}
CONTEXT_DEFAULTS |= {"offload_kqv": True, "op_offload": True, "swa_full": True, "kv_unified": False, "n_samplers": 0}

FUNCTIONS: dict[str, tuple[Any, ...]] = {  # the result, then the arguments
    "llama_backend_init": (None,),
    "llama_log_set": (None, OnLog, c_void_p),
    "llama_model_default_params": (ModelParams,),
    "llama_model_load_from_file": (c_void_p, c_char_p, ModelParams),
    "llama_model_free": (None, c_void_p),
    "llama_model_get_vocab": (c_void_p, c_void_p),
    "llama_model_n_ctx_train": (c_int32, c_void_p),
    "llama_model_n_layer": (c_int32, c_void_p),
    "llama_model_n_head": (c_int32, c_void_p),
    "llama_model_n_head_kv": (c_int32, c_void_p),
    "llama_model_n_embd": (c_int32, c_void_p),
    "llama_model_has_encoder": (c_bool, c_void_p),
    "llama_model_has_decoder": (c_bool, c_void_p),
    "llama_model_is_recurrent": (c_bool, c_void_p),
    "llama_model_is_hybrid": (c_bool, c_void_p),
    "llama_model_meta_val_str": (c_int32, c_void_p, c_char_p, c_char_p, c_size_t),
    "llama_vocab_n_tokens": (c_int32, c_void_p),
    "llama_tokenize": (c_int32, c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool),
    "llama_context_default_params": (ContextParams,),
    "llama_init_from_model": (c_void_p, c_void_p, ContextParams),
    "llama_free": (None, c_void_p),
    "llama_decode": (c_int32, c_void_p, Batch),
    "llama_get_logits_ith": (POINTER(c_float), c_void_p, c_int32),
    "llama_get_memory": (c_void_p, c_void_p),
    "llama_memory_seq_rm": (c_bool, c_void_p, c_int32, c_int32, c_int32),
    "llama_memory_seq_cp": (None, c_void_p, c_int32, c_int32, c_int32, c_int32),
    "ggml_op_name": (c_char_p, c_int),
    "ggml_init": (c_void_p, _GgmlParams),
    "ggml_free": (None, c_void_p),
    "ggml_new_tensor_2d": (c_void_p, c_void_p, c_int, c_int64, c_int64),
    "ggml_set_name": (c_void_p, c_void_p, c_char_p),
    "ggml_get_data": (c_void_p, c_void_p),
    "ggml_mul_mat": (c_void_p, c_void_p, c_void_p, c_void_p),
}
_errors: deque[str] = deque(maxlen=1)  # the last that llama.cpp has logged


@functools.cache
def open_library() -> Any:
    """llama.cpp's functions by their names in C, with the attribute `multiplication`, the number of that operation in ggml.

    Raises:
        InputError: xllamacpp is not installed, or is of a release whose structures are not known here.
    """
    try:
        file = importlib.import_module("xllamacpp.xllamacpp").__file__
    except ImportError:
        raise InputError(
            "The engine llama.cpp needs the package xllamacpp. Install it with: pip install 'slmtune[gguf]'"
        ) from None
    try:
        library: Any = CDLL(str(file))
        for name, (result, *arguments) in FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        library.llama_log_set(_on_log, None)
        library.llama_backend_init()
        library.multiplication = _find_multiplication(library)
        is_known = _has_known_layouts(library)
    except (OSError, AttributeError, StopIteration):
        is_known = False
    if not is_known:
        raise InputError(
            "This release of xllamacpp contains a llama.cpp that slmtune does not know. Install one that it does: pip install "
            "'slmtune[gguf]', or use --engine transformers"
        )
    return library


@contextmanager
def last_error() -> Iterator[deque[str]]:
    """The last error that llama.cpp logs meanwhile, if any."""
    _errors.clear()
    yield _errors


def _keep_error(level: int, text: bytes | None, data: Any) -> None:
    if level == ERROR and text:
        _errors.append(text.decode("utf-8", "replace").strip())


_on_log = OnLog(_keep_error)  # in place of llama.cpp's own, which writes to stderr


def _find_multiplication(library: Any) -> int:
    return next(number for number in range(OPERATIONS) if library.ggml_op_name(number) == b"MUL_MAT")


def _has_known_layouts(library: Any) -> bool:
    """Whether the structures above are those of the library, as far as it fills them in."""
    for params, defaults in (
        (library.llama_model_default_params(), MODEL_DEFAULTS),
        (library.llama_context_default_params(), CONTEXT_DEFAULTS),
    ):
        if any(getattr(params, name) != value for name, value in defaults.items()):
            return False
    context = library.ggml_init(_GgmlParams(1 << 16, None, False))
    try:
        weight, rows = (library.ggml_new_tensor_2d(context, 0, 4, count) for count in (3, 2))
        library.ggml_set_name(weight, b"weight")
        address = library.ggml_mul_mat(context, weight, rows)
        product, stored = GgmlTensor.from_address(address), GgmlTensor.from_address(weight)
        return (
            (product.op, tuple(product.ne), stored.name) == (library.multiplication, (3, 2, 1, 1), b"weight")
            and (product.src[0], product.src[1], product.src[2]) == (weight, rows, None)
            and product.data == library.ggml_get_data(address)
        )
    finally:
        library.ggml_free(context)
