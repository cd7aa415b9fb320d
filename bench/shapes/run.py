#!/usr/bin/env python3
"""A cluster beside the same model in one process: the same machine, interleaved in one run.

  bench/shapes/run.py [--model DIR] [--rounds 9] [--experts 2] [--sequences 1,8] [--lanes 1]

Needs a release build. Starts `gatefold serve` and deploy/local-cluster.sh, and measures decode in
both by turns. Prints the median of each, and of the rounds' ratios with their quartiles: machines
drift, so only what was measured side by side is divided. Every process may use every core.
"""

import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = ROOT / "build" / "release" / "bin"
PEERS_MODEL = ROOT / "build" / "peers" / "model"


def start(command: list) -> tuple[subprocess.Popen, str]:
    """Until it is ready; returns it and the last word of that line, its address."""
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    for line in process.stdout:
        if line.startswith("ready"):
            return process, line.split()[1]
    sys.exit(f"{command[0]} did not start")


def decode_rate(address: str, n_sequences: int, options: argparse.Namespace) -> float:
    done = subprocess.run(
        [BIN / "gatefold", "bench", f"--router={address}", "-o", "json",
         f"--prompt-tokens={max(1, options.prompt_tokens // n_sequences)}",
         f"--output-tokens={options.output_tokens}", f"--concurrency={n_sequences}",
         f"--requests={n_sequences}"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["decode_tokens_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, default=PEERS_MODEL)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--sequences", default="1,8")
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--port", type=int, default=7170)
    parser.add_argument("--prompt-tokens", type=int, default=32, help="over all sequences")
    parser.add_argument("--output-tokens", type=int, default=48)
    options = parser.parse_args()
    if options.model == PEERS_MODEL and not (PEERS_MODEL / "model.safetensors").exists():
        subprocess.run([BIN / "make_model", "--preset=peers", f"--out={PEERS_MODEL}"], check=True)
    n_cores = len(os.sched_getaffinity(0))

    started = []
    try:
        started.append(start([BIN / "gatefold", "serve", f"--model={options.model}",
                              f"--threads={n_cores}", f"--listen=127.0.0.1:{options.port + 1}"]))
        started.append(start([ROOT / "deploy" / "local-cluster.sh", f"--model={options.model}",
                              f"--experts={options.experts}", "--attention=1",
                              f"--port={options.port}", f"--lanes={options.lanes}",
                              f"--threads={n_cores}"]))
        for n_sequences in map(int, options.sequences.split(",")):
            rates = [[decode_rate(address, n_sequences, options) for _, address in started]
                     for _ in range(options.rounds)]
            local, cluster = zip(*rates)
            ratios = [c / l for l, c in rates]
            low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
            print(f"{n_sequences:2} sequences: local {statistics.median(local):6.1f} cluster "
                  f"{statistics.median(cluster):6.1f} tokens/s, ratio {middle:.2f} "
                  f"(quartiles {low:.2f} to {high:.2f})", flush=True)
    finally:
        for process, _ in started:
            process.send_signal(signal.SIGTERM)
            process.wait()


if __name__ == "__main__":
    main()
