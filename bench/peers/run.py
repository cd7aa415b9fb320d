#!/usr/bin/env python3
"""Gatefold beside llama.cpp: the same weights, the same machine, interleaved in one run.

  bench/peers/run.py [--rounds 5] [--threads 1,2] [--sequences 1,16] [--remote-experts 2]
                     [--weights checkpoint|int8|int4]

Needs a release build. Installs its own Python packages into build/peers/venv and makes the model
there (2.4 GB in bfloat16, and as much as GGUF). Prints the median of each, and of the rounds'
ratios: machines drift, so only what was measured side by side is divided. A ratio above 1 means
that Gatefold is faster. --weights quantises the experts of both, in llama.cpp to Q8_0 or Q4_0; those
rows are local ones.

After the local rows, the same with the experts in other processes of this machine: a cluster of 1
router, 1 attention-service and N expert-services, over the unix sockets that it uses on one machine,
beside llama.cpp with N servers of its RPC backend, which speaks TCP only. There every process may
use every core.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import time
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "peers"
BIN = ROOT / "build" / "release" / "bin"
PACKAGES = ["numpy", "gguf", "llama-cpp-python"]
HERE = ROOT / "bench" / "peers"


def prepare(model: pathlib.Path, gguf_path: pathlib.Path, weights: str) -> pathlib.Path:
    python = WORK / "venv" / "bin" / "python"
    if not python.exists():
        print("installing", ", ".join(PACKAGES), "(builds llama.cpp, some minutes)", file=sys.stderr)
        venv.create(WORK / "venv", with_pip=True)
    have = subprocess.run([python, "-c", "import numpy, gguf, llama_cpp"], capture_output=True)
    if have.returncode != 0:
        # From source: for this machine's instructions, and with the RPC backend, which wheels lack.
        environment = dict(os.environ, CMAKE_ARGS="-DGGML_RPC=ON")
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-binary=llama-cpp-python",
                        *PACKAGES], check=True, env=environment)
    if not (model / "model.safetensors").exists():
        subprocess.run([BIN / "make_model", "--preset=peers", f"--out={model}"], check=True)
    if not gguf_path.exists():
        code = ("import sys, pathlib; sys.path.insert(0, sys.argv[1]); import gguf_model; "
                "gguf_model.write_gguf(*map(pathlib.Path, sys.argv[2:4]), sys.argv[4])")
        subprocess.run([python, "-c", code, HERE, model, gguf_path, weights], check=True)
    return python


def run_json(command: list) -> dict:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


class Comparison:
    """Both by turns; one line per figure."""

    def __init__(self, options: argparse.Namespace, python: pathlib.Path, gguf_path: pathlib.Path):
        self.options, self.python, self.gguf_path = options, python, gguf_path
        self.worst = float("inf")

    def measure(self, where: str, place: list, n_threads: int, n_sequences: int,
                servers: list) -> None:
        """place: where `gatefold bench` finds the model."""
        prompt, output = self.options.prompt_tokens, self.options.output_tokens
        ours, theirs = [], []
        for _ in range(self.options.rounds):
            ours.append(run_json([
                BIN / "gatefold", "bench", *place, f"--prompt-tokens={prompt // n_sequences}",
                f"--output-tokens={output}", f"--concurrency={n_sequences}",
                f"--requests={n_sequences}", "-o", "json"]))
            theirs.append(run_json([
                self.python, HERE / "llama_cpp_bench.py", self.gguf_path, n_threads, prompt, output,
                n_sequences, *([",".join(servers)] if servers else [])]))
        for what in ("prefill", "decode"):
            if what == "prefill" and n_sequences > 1:
                continue
            key = f"{what}_tokens_per_second"
            mine = statistics.median(r[key] for r in ours)
            peer = statistics.median(r[key] for r in theirs)
            ratio = statistics.median(a[key] / b[key] for a, b in zip(ours, theirs))
            self.worst = min(self.worst, ratio)
            print(f"{where:6} {what:8} threads {n_threads} sequences {n_sequences:2}: gatefold "
                  f"{mine:7.1f} llama.cpp {peer:7.1f} tokens/s, ratio {ratio:.2f}", flush=True)


@contextlib.contextmanager
def running(command: list):
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def await_ready(process: subprocess.Popen) -> str:
    """The address in the line that says so."""
    for line in process.stdout:
        if line.startswith("ready"):
            return line.split()[1]
    sys.exit("the cluster did not start")


def await_listening(port: int) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    sys.exit(f"nothing listens on port {port}")


def compare_remote(comparison: Comparison, model: pathlib.Path, sequences: list) -> None:
    options = comparison.options
    n_cores = len(os.sched_getaffinity(0))
    ports = [options.port + 1 + i for i in range(options.remote_experts)]
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(running([comparison.python, HERE / "llama_cpp_rpc_server.py",
                                         f"127.0.0.1:{port}", n_cores]))
        cluster = stack.enter_context(running(
            [ROOT / "deploy" / "local-cluster.sh", f"--model={model}", f"--port={options.port}",
             f"--experts={options.remote_experts}", "--attention=1", f"--threads={n_cores}"]))
        address = await_ready(cluster)
        for port in ports:
            await_listening(port)
        for n_sequences in sequences:
            comparison.measure("remote", [f"--router={address}"], n_cores, n_sequences,
                               [f"127.0.0.1:{port}" for port in ports])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--sequences", default="1,16")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--remote-experts", type=int, default=2, help="processes; 0: local rows only")
    parser.add_argument("--weights", default="checkpoint", choices=["checkpoint", "int8", "int4"])
    parser.add_argument("--port", type=int, default=7180, help="and those after it, free ones")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    quantised = options.weights != "checkpoint"
    model = WORK / "model"
    gguf_path = WORK / (f"model-{options.weights}.gguf" if quantised else "model.gguf")
    python = prepare(model, gguf_path, options.weights)
    comparison = Comparison(options, python, gguf_path)
    sequences = [int(n) for n in options.sequences.split(",")]
    for n_threads in map(int, options.threads.split(",")) if options.threads else []:
        for n_sequences in sequences:
            if n_sequences == 1 or n_threads >= (os.cpu_count() or 1):
                place = [f"--model={model}", f"--threads={n_threads}", f"--weights={options.weights}"]
                comparison.measure("local", place, n_threads, n_sequences, [])
    slower = comparison.worst < 1.0  # the remote rows are to know, not a bar
    if options.remote_experts > 0 and not quantised:
        compare_remote(comparison, model, sequences)
    sys.exit(1 if slower else 0)


if __name__ == "__main__":
    main()
