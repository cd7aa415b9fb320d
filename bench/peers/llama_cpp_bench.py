"""Times llama.cpp (through llama-cpp-python's C bindings) on one GGUF file; prints one JSON line.

  python llama_cpp_bench.py FILE.gguf THREADS PROMPT_TOKENS OUTPUT_TOKENS SEQUENCES

Prefill: one prompt, in batches of 512. Decode: OUTPUT_TOKENS steps of SEQUENCES rows each, every
sequence after a prompt of its own of PROMPT_TOKENS / SEQUENCES tokens, all started once before.
"""

import ctypes
import json
import random
import sys
import time

import llama_cpp


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
    llama_cpp.llama_log_set(ctypes.cast(None, llama_cpp.llama_log_callback), ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        path.encode(), llama_cpp.llama_model_default_params())
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
