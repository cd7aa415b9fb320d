#!/usr/bin/env python3
"""The services themselves with experts on a device: tokens per second, and where a step's time goes.

  bench/gpu/services.py --model DIR [--bin build/release/bin] [--backend cuda] [--sequences 1,8,64]

Starts one attention-service with --attention-backend, one expert-service with --backend and one router over
unix sockets, sends `gatefold bench` at each number of sequences, and prints rates with the router's step time
by phase. A phase that calls a service is split: the device, the service's host around it (copies between host
and device, launches, the CPU's own computing), and the rest, which is the wire and the queues. With --one-process
it is `gatefold serve --backend` instead, whose phases are not split. Processes that share a device take turns on
it; with --mps NVIDIA's service of that name computes for all of them.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
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


class Clock:
    """Seconds by phase, and within those that call a service by where they go. Read twice, for a difference."""

    def __init__(self, router: str, services: dict[str, str]):
        self.router, self.services = router, services
        self.before = self.read()

    def read(self) -> dict[str, float]:
        def ask(address: str) -> str:
            return urllib.request.urlopen(address).read().decode()
        phases = {phase: float(value) for phase, value in re.findall(
            r'gatefold_step_seconds_sum{[^}]*phase="(\w+)"[^}]*} (\S+)', ask(self.router))}
        for service, address in self.services.items():
            text = ask(address)
            for kind in ("compute", "device"):
                phases[f"{service} {kind}"] = sum(map(float, re.findall(
                    rf"^gatefold_{service}_{kind}_seconds_total(?:{{[^}}]*}})? (\S+)", text, re.MULTILINE)))
        return phases

    def since(self) -> str:
        now = self.read()
        spent = {k: v - self.before.get(k, 0) for k, v in now.items()}
        self.before = now
        # A service computes what several phases of a step ask of it.
        asks = {k: v for k, v in {"expert": ["experts"], "attention": ["attention", "sample"]}.items()
                if k in self.services}
        asked = [phase for phases in asks.values() for phase in phases]
        parts = {k: v for k, v in spent.items() if " " not in k and k not in asked}
        for service, phases in asks.items():
            compute, device = spent[f"{service} compute"], spent[f"{service} device"]
            parts[f"{service} device"] = device
            parts[f"{service} host"] = compute - device
            parts[f"{service} wire"] = sum(spent.get(phase, 0) for phase in phases) - compute
        total = sum(parts.values()) or 1
        return ", ".join(f"{k} {100 * v / total:.0f} %" for k, v in parts.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("build/release/bin"))
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--attention-backend", default="cpu")
    parser.add_argument("--one-process", action="store_true", help="`gatefold serve`, with --router-flags")
    parser.add_argument("--colocated", action="store_true", help="attention in the router's process")
    parser.add_argument("--mps", action="store_true", help="share the device by nvidia-cuda-mps-control")
    for service in ("router", "attention", "expert"):
        parser.add_argument(f"--{service}-flags", default="", help=f"more flags of the {service}-service")
    parser.add_argument("--wait", default="block", help="how all of them await the network")
    parser.add_argument("--timeout", type=int, default=600, help="of one bench, in seconds")
    parser.add_argument("--sequences", default="1,8,64")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    flags = parser.parse_args()

    folder = pathlib.Path(tempfile.mkdtemp(prefix="gatefold."))
    log = open(folder / "services.log", "w", encoding="utf-8")
    experts, attention, router = (f"unix:{folder}/{name}" for name in ("experts", "attention", "router"))
    processes, addresses = [], {}
    common = [f"--model={flags.model}", f"--wait={flags.wait}"]
    commands = [["expert-service", *common, f"--listen={experts}", f"--backend={flags.backend}",
                 *flags.expert_flags.split()]]
    to_router = [f"--listen={router}", f"--experts={experts}", *flags.router_flags.split()]
    if flags.colocated:
        to_router += ["--colocated", f"--attention-backend={flags.attention_backend}"]
    else:
        to_router += [f"--attention={attention}"]
        commands.append(["attention-service", *common, f"--listen={attention}",
                         f"--backend={flags.attention_backend}", *flags.attention_flags.split()])
    commands.append(["router-service", *common, *to_router])
    if flags.one_process:
        commands = [["gatefold", "serve", f"--model={flags.model}", f"--listen={router}", "--metrics-port=0",
                     f"--backend={flags.backend}", *flags.router_flags.split()]]
    if flags.mps:
        if shutil.which("nvidia-cuda-mps-control") is None:
            parser.error("--mps needs nvidia-cuda-mps-control, which comes with NVIDIA's driver")
        os.environ["CUDA_MPS_PIPE_DIRECTORY"] = os.environ["CUDA_MPS_LOG_DIRECTORY"] = str(folder)
        subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True)
    try:
        for command in commands:
            process, metrics = start([flags.bin / command[0], *command[1:]], log)
            processes.append(process)
            addresses[command[0].split("-")[0]] = metrics
        log.flush()
        clock = Clock(addresses.popitem()[1], addresses)  # the router, or the one process, came last
        lines = open(log.name, encoding="utf-8").readlines()
        print("".join(line for line in lines if " backend " in line or line.startswith("computing on ")).strip())
        print("| sequences | prefill, tokens/s | decode, tokens/s | ITL p50, ms | share of the time by phase |")
        print("|---|---|---|---|---|")
        for n in map(int, flags.sequences.split(",")):
            done = subprocess.run(
                [flags.bin / "gatefold", "bench", f"--router={router}", "-o", "json",
                 f"--prompt-tokens={flags.prompt_tokens}", f"--output-tokens={flags.output_tokens}",
                 f"--concurrency={n}", f"--requests={2 * n}"], capture_output=True, text=True, check=False,
                timeout=flags.timeout)
            if done.returncode != 0:
                sys.exit(f"bench failed:\n{done.stderr[-2000:]}\nsee {log.name}")
            result = json.loads(done.stdout.strip().splitlines()[-1])
            print(f"| {n} | {result['prefill_tokens_per_second']:.0f} | {result['decode_tokens_per_second']:.1f} "
                  f"| {result['itl_ms']['p50']:.2f} | {clock.since()} |", flush=True)
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
        if flags.mps:
            subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
