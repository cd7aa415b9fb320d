"""A cluster of processes and a real Prometheus that scrapes it, with this repository's configuration.

Three shards that a planner fills, one attention-service, one router; all on unix sockets, metrics on
free ports of this host.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import prometheus_tools

ROOT = prometheus_tools.ROOT
BIN = pathlib.Path(os.environ.get("GATEFOLD_BIN", ROOT / "build" / "release" / "bin"))
MODEL = ROOT / "tests" / "golden" / "mixtral" / "bf16"
START_SECONDS = 60


def wait_for(what, check, seconds=START_SECONDS):
    """check() until it is true; its answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


class Cluster:
    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gatefold-prometheus."))
        self.processes = {}
        self.commands = {}
        self.url = ""

    # --- services ---

    def start(self, name, program, *args):
        self.commands[name] = [BIN / program, f"--name={name}", f"--model={MODEL}", "--threads=1",
                               f"--listen=unix:{self.folder / name}", *args]
        self.restart(name)

    def restart(self, name):
        with open(self.folder / f"{name}.log", "w", encoding="utf-8") as log:
            self.processes[name] = subprocess.Popen(self.commands[name], stdout=log,
                                                    stderr=subprocess.STDOUT)

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def await_ready(self, name):
        def ready():
            assert self.processes[name].poll() is None, f"{name} ended:\n{self.log(name)}"
            return re.search(r"^ready", self.log(name), re.M)
        wait_for(f"{name} is ready", ready)

    def start_services(self):
        experts = ",".join(f"unix:{self.folder}/expert-{i}" for i in range(3))
        for i in range(3):
            port = free_port()  # fixed, so that it is the same target after a restart
            self.start(f"expert-{i}", "expert-service", "--experts=none", "--metrics-per-expert",
                       f"--metrics-port={port}")
        self.start("attention-0", "attention-service", "--kv-memory=64MiB", "--metrics-port=0")
        self.start("router", "router-service", f"--experts={experts}", "--planner=on", "--lanes=2",
                   "--max-running=2",  # so that some wait
                   "--verify=50%",
                   f"--attention=unix:{self.folder}/attention-0", "--metrics-port=0")
        for name in self.processes:
            self.await_ready(name)

    def kill(self, name):
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def load(self, n_requests):
        """A load generator under way; it ends by itself."""
        return subprocess.Popen(
            [BIN / "gatefold", "bench", "--router", f"unix:{self.folder}/router", "--prompt-tokens=48",
             "--output-tokens=64", "--concurrency=4", f"--requests={n_requests}", "-o", "json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def router_total(self, counter):
        """Of all its series, as the router itself says, sooner than Prometheus does."""
        url = re.search(r"metrics (http://\S+)", self.log("router")).group(1)
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        return sum(float(n) for n in re.findall(rf"^{counter}{{.*}} (\S+)", text, re.M))

    # --- Prometheus ---

    def targets(self):
        """As deploy/prometheus/targets.sh makes them of what deploy/local-cluster.sh prints."""
        log = self.folder / "cluster.log"
        with open(log, "w", encoding="utf-8") as lines:
            for name, process in self.processes.items():
                listening = re.search(r"^listening on .*", self.log(name), re.M).group(0)
                lines.write(f"{name} pid {process.pid} {listening}\n")
        return subprocess.run([ROOT / "deploy/prometheus/targets.sh", log], capture_output=True,
                              text=True, check=True).stdout

    def start_prometheus(self):
        program = prometheus_tools.require("prometheus")
        home = self.folder / "prometheus"
        (home / "targets").mkdir(parents=True)
        source = ROOT / "deploy" / "prometheus"
        shutil.copy(source / "alerts.yaml", home)
        config = (source / "prometheus.yml").read_text().replace("_interval: 15s", "_interval: 1s")
        (home / "prometheus.yml").write_text(config)
        targets = self.targets()
        (home / "targets" / "local.json").write_text(targets)
        address = f"127.0.0.1:{free_port()}"
        with open(self.folder / "prometheus.log", "w", encoding="utf-8") as log:
            self.processes["prometheus"] = subprocess.Popen(
                [program, f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data",
                 f"--web.listen-address={address}"], stdout=log, stderr=subprocess.STDOUT)
        self.url = f"http://{address}"
        n_targets = len(json.loads(targets))
        wait_for("Prometheus has scraped all", lambda: len(self.query("up == 1")) == n_targets)

    def get(self, path, **parameters):
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it still starts
                return None
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error
        except OSError:
            assert self.processes["prometheus"].poll() is None, self.log("prometheus")
            return None

    def query(self, expression):
        """[(labels, value)]"""
        data = self.get("query", query=expression)
        if data is None:
            return []
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(r["metric"], float(r["value"][1])) for r in data["result"]]

    def stop(self):
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
