#!/usr/bin/env python3
"""Our kernels on a device beside PyTorch's on the same shapes, in one run:

  bench/gpu/run.py BUILD

BUILD is a build of tests/gpu. Prints a table per kernel: our time, PyTorch's best time, the ratio, and the
share of what the card can do (a large copy; a large bfloat16 product), both measured here.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

import torch
import torch.nn.functional as F

EXPERTS, TOP_K, D_MODEL, D_FF = 8, 2, 4096, 14336
LAYERS = 3  # taken by turns, so that no cache holds what was read before


def seconds_of(run, rounds: int, calls: int) -> float:
    """Median over rounds of the time of one of `calls` calls that follow one another. run(i)."""
    for i in range(calls):
        run(i)
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        run(0)
        begin.record()
        for i in range(calls):
            run(i + 1)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e-3 / calls)
    return statistics.median(times)


def copy_bandwidth() -> float:
    a = torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    return 2 * a.numel() / seconds_of(lambda i: b.copy_(a), 10, 3)


def product_rate() -> float:
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds_of(lambda i: a @ b, 10, 5)


class TorchExperts:
    """The expert MLPs of a few layers; rows are sorted by expert before the clock starts."""

    def __init__(self):
        def weights(rows, columns):
            return [torch.randn(EXPERTS, rows, columns, device="cuda", dtype=torch.bfloat16) * columns**-0.5
                    for _ in range(LAYERS)]
        self.w1, self.w3, self.w2 = weights(D_FF, D_MODEL), weights(D_FF, D_MODEL), weights(D_MODEL, D_FF)

    def routes(self, n_tokens: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.rand(n_tokens, EXPERTS, generator=generator).topk(TOP_K).indices.flatten()
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=EXPERTS)
        return (order // TOP_K).cuda(), counts.tolist(), counts.cumsum(0).to(torch.int32).cuda()

    def looped(self, x, routes, layer):
        token, counts, _ = routes
        rows, out, first = x[token], [], 0
        for e, n in enumerate(counts):
            if n:
                part = rows[first:first + n]
                h = F.silu(F.linear(part, self.w1[layer][e])) * F.linear(part, self.w3[layer][e])
                out.append(F.linear(h, self.w2[layer][e]))
            first += n
        return torch.cat(out)

    def grouped(self, x, routes, layer):
        token, _, ends = routes
        rows = x[token]
        product = torch._grouped_mm
        gate = product(rows, self.w1[layer].transpose(1, 2), offs=ends)
        up = product(rows, self.w3[layer].transpose(1, 2), offs=ends)
        return product(F.silu(gate) * up, self.w2[layer].transpose(1, 2), offs=ends)

    def best(self, n_tokens: int) -> tuple[float, str]:
        x = torch.randn(n_tokens, D_MODEL, device="cuda", dtype=torch.bfloat16)
        routes = [self.routes(n_tokens, seed) for seed in range(12)]
        times = {}
        for name in ("looped", "grouped"):
            run = getattr(self, name)
            try:
                calls = LAYERS if n_tokens > 256 else 12
                times[name] = seconds_of(lambda i: run(x, routes[i % 12], i % LAYERS), 9, calls)
            except Exception as e:  # not every version has it for every shape
                print(f"PyTorch, {name}, {n_tokens} tokens: {str(e).splitlines()[0][:120]}", file=sys.stderr)
        name = min(times, key=times.get)
        return times[name], name


def run_ours(binary: pathlib.Path, weights: str) -> list[dict]:
    done = subprocess.run([binary, weights], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def experts(binary: pathlib.Path, product: float) -> None:
    ours = run_ours(binary, "bf16")
    theirs = TorchExperts()
    print(f"\nexperts, {EXPERTS} x {D_MODEL} x {D_FF}, top-{TOP_K}, bfloat16\n")
    print("| tokens | ours, us | PyTorch, us | ratio | weights, GB/s | of copy | TFLOP/s | of product "
          "| routes on the device, us | norm, gate, fold, us |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in ours:
        seconds, name = theirs.best(row["tokens"])
        print(f"| {row['tokens']} | {row['us']:.0f} | {seconds * 1e6:.0f} ({name}) | {seconds * 1e6 / row['us']:.2f} "
              f"| {row['weights_gb_s']} | {row['share_of_copy']:.2f} | {row['tflops']:.0f} "
              f"| {row['tflops'] * 1e12 / product:.2f} | {row['routed_us']:.0f} | {row['router_us']:.1f} |", flush=True)
    for weights in ("int8", "int4"):
        print(f"\nthe same, {weights}\n\n| tokens | us | bfloat16 over it | weights, GB/s | of copy | TFLOP/s |")
        print("|---|---|---|---|---|---|")
        for row, plain in zip(run_ours(binary, weights), ours):
            print(f"| {row['tokens']} | {row['us']:.0f} | {plain['us'] / row['us']:.2f} | {row['weights_gb_s']} "
                  f"| {row['share_of_copy']:.2f} | {row['tflops']:.0f} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    flags = parser.parse_args()
    if not torch.cuda.is_available():
        print("run.py: no CUDA device", file=sys.stderr)
        return 1
    torch.manual_seed(1)
    product = product_rate()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; copy {copy_bandwidth() / 1e9:.0f} GB/s, "
          f"bfloat16 product of 8192: {product / 1e12:.0f} TFLOP/s")
    experts(flags.build / "bench" / "gpu_expert_bench", product)
    return 0


if __name__ == "__main__":
    sys.exit(main())
