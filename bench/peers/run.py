#!/usr/bin/env python3
"""Gatefold beside llama.cpp: the same weights, the same machine, interleaved in one run.

  bench/peers/run.py [--rounds 5] [--threads 1,2] [--sequences 1,16]

Needs a release build. Installs its own Python packages into build/peers/venv and makes the model
there (2.4 GB in bfloat16, and as much as GGUF). Prints the median of each, and of the rounds'
ratios: machines drift, so only what was measured side by side is divided. A ratio above 1 means
that Gatefold is faster.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "peers"
BIN = ROOT / "build" / "release" / "bin"
PACKAGES = ["numpy", "gguf", "llama-cpp-python"]


def prepare(model: pathlib.Path, gguf_path: pathlib.Path) -> pathlib.Path:
    python = WORK / "venv" / "bin" / "python"
    if not python.exists():
        print("installing", ", ".join(PACKAGES), "(builds llama.cpp, some minutes)", file=sys.stderr)
        venv.create(WORK / "venv", with_pip=True)
    have = subprocess.run([python, "-c", "import numpy, gguf, llama_cpp"], capture_output=True)
    if have.returncode != 0:
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    if not (model / "model.safetensors").exists():
        subprocess.run([BIN / "make_model", "--preset=peers", f"--out={model}"], check=True)
    if not gguf_path.exists():
        code = ("import sys, pathlib; sys.path.insert(0, sys.argv[1]); import gguf_model; "
                "gguf_model.write_gguf(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))")
        subprocess.run([python, "-c", code, ROOT / "bench" / "peers", model, gguf_path], check=True)
    return python


def run_json(command: list) -> dict:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--sequences", default="1,16")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--output-tokens", type=int, default=64)
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    model, gguf_path = WORK / "model", WORK / "model.gguf"
    python = prepare(model, gguf_path)

    rows = []
    for n_threads in map(int, options.threads.split(",")):
        for n_sequences in map(int, options.sequences.split(",")):
            if n_sequences > 1 and n_threads < (os.cpu_count() or 1):
                continue
            ours, theirs = [], []
            for _ in range(options.rounds):
                prompt = options.prompt_tokens
                ours.append(run_json([
                    BIN / "gatefold", "bench", f"--model={model}", f"--threads={n_threads}",
                    f"--prompt-tokens={prompt // n_sequences}",
                    f"--output-tokens={options.output_tokens}", f"--concurrency={n_sequences}",
                    f"--requests={n_sequences}", "-o", "json"]))
                theirs.append(run_json([
                    python, ROOT / "bench" / "peers" / "llama_cpp_bench.py", gguf_path, n_threads,
                    prompt, options.output_tokens, n_sequences]))
            for what in ("prefill", "decode"):
                if what == "prefill" and n_sequences > 1:
                    continue
                key = f"{what}_tokens_per_second"
                mine = statistics.median(r[key] for r in ours)
                peer = statistics.median(r[key] for r in theirs)
                ratio = statistics.median(a[key] / b[key] for a, b in zip(ours, theirs))
                rows.append((what, n_threads, n_sequences, mine, peer, ratio))
                print("{:8} threads {} sequences {:2}: gatefold {:7.1f} llama.cpp {:7.1f} "
                      "tokens/s, ratio {:.2f}".format(*rows[-1]), flush=True)
    sys.exit(0 if all(row[-1] >= 1.0 for row in rows) else 1)


if __name__ == "__main__":
    main()
