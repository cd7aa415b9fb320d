#!/usr/bin/env python3
"""The services themselves with experts on a device: tokens per second, and where a step's time goes.

  bench/gpu/services.py --model DIR [--bin build/release/bin] [--backend cuda] [--sequences 1,8,64]

Starts one attention-service (CPU), one expert-service with --backend and one router over unix sockets,
sends `gatefold bench` at each number of sequences, and prints rates with the router's step time by phase.
"""

import argparse
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request


def start(command: list, log) -> tuple[subprocess.Popen, str]:
    """Until it is ready; returns it and where its metrics are."""
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True, stderr=log)
    metrics = ""
    for line in process.stdout:
        metrics = metrics or "".join(re.findall(r"metrics (\S+)", line))
        if line.startswith("ready"):
            return process, metrics
    sys.exit(f"{command[0]} did not start; see {log.name}")


def phase_seconds(metrics: str) -> dict[str, float]:
    text = urllib.request.urlopen(metrics).read().decode()
    return {phase: float(value) for phase, value in
            re.findall(r'gatefold_step_seconds_sum{[^}]*phase="(\w+)"[^}]*} (\S+)', text)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("build/release/bin"))
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--sequences", default="1,8,64")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    flags = parser.parse_args()

    folder = pathlib.Path(tempfile.mkdtemp(prefix="gatefold."))
    log = open(folder / "services.log", "w", encoding="utf-8")
    experts, attention, router = (f"unix:{folder}/{name}" for name in ("experts", "attention", "router"))
    processes = []
    try:
        for command in (
                ["expert-service", f"--listen={experts}", f"--backend={flags.backend}"],
                ["attention-service", f"--listen={attention}"],
                ["router-service", f"--listen={router}", f"--experts={experts}", f"--attention={attention}"]):
            process, metrics = start([flags.bin / command[0], f"--model={flags.model}", *command[1:]], log)
            processes.append(process)
        log.flush()
        print("".join(line for line in open(log.name, encoding="utf-8") if " backend " in line).strip())
        print("| sequences | prefill, tokens/s | decode, tokens/s | ITL p50, ms | share of the time by phase |")
        print("|---|---|---|---|---|")
        for n in map(int, flags.sequences.split(",")):
            before = phase_seconds(metrics)
            done = subprocess.run(
                [flags.bin / "gatefold", "bench", f"--router={router}", "-o", "json",
                 f"--prompt-tokens={flags.prompt_tokens}", f"--output-tokens={flags.output_tokens}",
                 f"--concurrency={n}", f"--requests={2 * n}"], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                sys.exit(f"bench failed:\n{done.stderr[-2000:]}\nsee {log.name}")
            result = json.loads(done.stdout.strip().splitlines()[-1])
            spent = {k: v - before.get(k, 0) for k, v in phase_seconds(metrics).items()}
            total = sum(spent.values()) or 1
            phases = ", ".join(f"{k} {100 * v / total:.0f} %" for k, v in spent.items())
            print(f"| {n} | {result['prefill_tokens_per_second']:.0f} | {result['decode_tokens_per_second']:.1f} "
                  f"| {result['itl_ms']['p50']:.2f} | {phases} |", flush=True)
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
