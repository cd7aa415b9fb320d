#!/usr/bin/env python3
"""Our attention on a device beside PyTorch's scaled_dot_product_attention, in one run:

  bench/gpu/attention_run.py ATTENTION_BENCH [WORD]

Runs the cases whose name contains WORD. PyTorch reads a contiguous cache where ours is paged, and gets the
better of two forms for decode: grouped-query heads as it knows them, and the heads of a group as positions of
one query. Each call takes its turn over caches that together exceed the L2, in a captured graph as ours.
"""

import json
import statistics
import subprocess
import sys

import torch
import torch.nn.functional as F


def microseconds(run, turns: int, rounds: int = 21) -> float:
    for i in range(turns):
        run(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(turns):
            run(i)
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / turns)
    return statistics.median(times)


def forms(case: dict, q, caches):
    """Ways to ask PyTorch for the case, by name. None has a window together with a cache."""
    n, heads, kv_heads, d = case["sequences"], case["n_heads"], case["n_kv_heads"], case["head_dim"]
    group = heads // kv_heads
    if case["tokens"] == 1:
        as_positions = q.reshape(n, kv_heads, group, d)
        yield "grouped", lambda i: F.scaled_dot_product_attention(q, *caches[i], enable_gqa=group > 1)
        yield "as positions", lambda i: F.scaled_dot_product_attention(as_positions, *caches[i])
    elif case["context"] == 0:
        yield "causal", lambda i: F.scaled_dot_product_attention(q, *caches[i], is_causal=True,
                                                                 enable_gqa=group > 1)


def torch_best(case: dict):
    if case["window"]:
        return None
    n, length, kv_heads, d = (case["sequences"], case["context"] + case["tokens"], case["n_kv_heads"],
                              case["head_dim"])
    turns = min(64, max(4, (4 << 30) // (n * kv_heads * length * d * 4) + 1))
    new = lambda *shape: torch.randn(*shape, device="cuda", dtype=torch.bfloat16)
    caches = [(new(n, kv_heads, length, d), new(n, kv_heads, length, d)) for _ in range(turns)]
    q = new(n, case["n_heads"], case["tokens"], d)
    best = None
    for name, run in forms(case, q, caches):
        try:
            time = microseconds(run, turns)
        except Exception as e:  # not every version has every form
            print(f"PyTorch, {name}, {case['case']}: {str(e).splitlines()[0][:120]}", file=sys.stderr)
            continue
        if best is None or time < best[0]:
            best = time, name
    return best


def main() -> int:
    if len(sys.argv) not in (2, 3) or not torch.cuda.is_available():
        print(__doc__ if torch.cuda.is_available() else "attention_run.py: no CUDA device", file=sys.stderr)
        return 1
    lines = subprocess.run(sys.argv[1:], check=True, capture_output=True, text=True).stdout.splitlines()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}\n")
    print("| case | ours, us | PyTorch, us | ratio | GB/s | of copy | TFLOP/s | rope and append, us | both, us |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in map(json.loads, lines):
        best = torch_best(case)
        theirs = f"{best[0]:.0f} ({best[1]}) | {best[0] / case['us']:.2f}" if best else "- | -"
        print(f"| {case['case']} | {case['us']:.1f} | {theirs} | {case['gb_s']} | {case['share_of_copy']:.2f} "
              f"| {case['tflops']:.0f} | {case['rope_append_us']:.1f} | {case['both_us']:.1f} |", flush=True)
        torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
