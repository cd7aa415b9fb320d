"""Times llama.cpp (through llama-cpp-python's C bindings) on one GGUF file; prints one JSON line.

  python llama_cpp_bench.py FILE.gguf THREADS PROMPT_TOKENS OUTPUT_TOKENS SEQUENCES [HOST:PORT,...]

With addresses of RPC servers (llama_cpp_rpc_server.py) the experts' weights are there, layers shared
out evenly, and everything else is here: the split of a Gatefold cluster.

Prefill: one prompt, in batches of 512. Decode: OUTPUT_TOKENS steps of SEQUENCES rows each, every
sequence after a prompt of its own of PROMPT_TOKENS / SEQUENCES tokens, all started once before.
"""

import ctypes
import json
import random
import sys
import time

import llama_cpp

from llama_cpp_rpc_server import load_ggml


class BufferOverride(ctypes.Structure):
    """llama_model_tensor_buft_override of llama.h."""
    _fields_ = [("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p)]


def experts_on(servers, n_layers):
    """The servers' devices, and overrides that put the experts of consecutive layers on each."""
    base, rpc = load_ggml("ggml-base"), load_ggml("ggml-rpc")
    rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    base.ggml_backend_reg_dev_get.restype = ctypes.c_void_p
    base.ggml_backend_dev_buffer_type.restype = ctypes.c_void_p
    devices, overrides = [], []
    for i, server in enumerate(servers):
        registry = rpc.ggml_backend_rpc_add_server(server.encode())
        if not registry:
            sys.exit(f"no RPC server at {server}")
        load_ggml("ggml").ggml_backend_register(ctypes.c_void_p(registry))
        device = base.ggml_backend_reg_dev_get(ctypes.c_void_p(registry), ctypes.c_size_t(0))
        devices.append(device)
        buffer_type = base.ggml_backend_dev_buffer_type(ctypes.c_void_p(device))
        layers = range(i * n_layers // len(servers), (i + 1) * n_layers // len(servers))
        pattern = "blk\\.({})\\.ffn_(gate|up|down)_exps".format("|".join(map(str, layers)))
        overrides.append(BufferOverride(pattern.encode(), buffer_type))
    n = len(servers) + 1  # both lists end with a null
    return (ctypes.c_void_p * n)(*devices), (BufferOverride * n)(*overrides)


def layers_of(path):
    import gguf
    field = gguf.GGUFReader(path).get_field("llama.block_count")
    return int(field.parts[field.data[0]][0])


def fill(batch, rows):
    """rows: (token, position, sequence, wants logits)."""
    batch.n_tokens = len(rows)
    for i, (token, position, sequence, logits) in enumerate(rows):
        batch.token[i] = token
        batch.pos[i] = position
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = sequence
        batch.logits[i] = logits


def decode(context, batch):
    if llama_cpp.llama_decode(context, batch) != 0:
        sys.exit("llama_decode failed")


def main() -> None:
    path, n_threads, n_prompt, n_output, n_sequences = sys.argv[1], *map(int, sys.argv[2:6])
    servers = sys.argv[6].split(",") if len(sys.argv) > 6 else []
    llama_cpp.llama_log_set(ctypes.cast(None, llama_cpp.llama_log_callback), ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model_params = llama_cpp.llama_model_default_params()
    if servers:
        devices, overrides = experts_on(servers, layers_of(path))
        model_params.devices = ctypes.cast(devices, ctypes.c_void_p)
        model_params.n_gpu_layers = 0
        model_params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
    model = llama_cpp.llama_model_load_from_file(path.encode(), model_params)
    if not model:
        sys.exit("the model was not loaded")
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = n_sequences * (n_prompt + n_output + 64)
    params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = n_threads
    params.n_seq_max = n_sequences
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(512, 0, 1)
    n_vocab = 32000
    rng = random.Random(1)
    memory = llama_cpp.llama_get_memory(context)

    def prefill(sequence: int, n: int) -> float:
        tokens = [rng.randrange(n_vocab) for _ in range(n)]
        start = time.perf_counter()
        for first in range(0, n, 512):
            chunk = tokens[first:first + 512]
            fill(batch, [(t, first + i, sequence, first + i == n - 1) for i, t in enumerate(chunk)])
            decode(context, batch)
        llama_cpp.llama_get_logits(context)  # waits for the result
        return time.perf_counter() - start

    prefill(0, n_prompt)  # warm-up: pages, threads
    llama_cpp.llama_memory_clear(memory, True)
    prefill_seconds = prefill(0, n_prompt)
    llama_cpp.llama_memory_clear(memory, True)
    each = max(1, n_prompt // n_sequences)
    for sequence in range(n_sequences):
        prefill(sequence, each)
    start = time.perf_counter()
    for step in range(n_output):
        fill(batch, [(rng.randrange(n_vocab), each + step, s, True) for s in range(n_sequences)])
        decode(context, batch)
        llama_cpp.llama_get_logits(context)
    decode_seconds = time.perf_counter() - start
    print(json.dumps({
        "prefill_tokens_per_second": n_prompt / prefill_seconds,
        "decode_tokens_per_second": n_output * n_sequences / decode_seconds,
    }))


if __name__ == "__main__":
    main()
