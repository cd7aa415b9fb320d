import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import chart_flags
import tools

DEPLOY = tools.ROOT / "deploy"
PROGRAMS = ["gatefold", "router-service", "attention-service", "expert-service"]


def dockerfile():
    """Its text with lines that go on joined."""
    return re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())


class ImageTest(unittest.TestCase):
    def test_all_programs_are_built_and_copied(self):
        text = dockerfile()
        for line in re.findall(r"--target (.*?) &&|for name in (.*?);", text):
            self.assertEqual(sorted((line[0] or line[1]).split()), sorted(PROGRAMS))

    def test_the_last_stage_runs_as_nobody_in_particular(self):
        stage = dockerfile().rpartition("\nFROM ")[2]
        self.assertTrue(stage.startswith("debian:12-slim"))
        self.assertRegex(stage, r"\nUSER 65532:65532\n")
        self.assertNotIn("COPY . .", stage)

    def test_a_pod_that_asks_for_no_gpu_is_given_none(self):
        """Where NVIDIA's runtime is a node's default, it goes by this variable; Docker's --gpus and
        Kubernetes' device plugin set it for those who ask."""
        self.assertNotIn("NVIDIA_VISIBLE_DEVICES", dockerfile())

    def test_libraries_of_the_programs_come_with_its_packages(self):
        if not shutil.which("dpkg-query") or not (chart_flags.BIN / "gatefold").exists():
            self.skipTest("needs Debian's dpkg and the built programs")
        stage = dockerfile().rpartition("\nFROM ")[2]
        packages = re.search(r"--no-install-recommends (.*?)&&", stage).group(1).split()
        there = with_dependencies(packages)
        paths = set()
        for program in PROGRAMS:
            linked = subprocess.run(["ldd", chart_flags.BIN / program], capture_output=True, text=True,
                                    check=True).stdout
            paths |= set(re.findall(r"=> (/\S+)", linked))
        needed = packages_of(paths)
        self.assertGreater(len(needed), 5)
        self.assertEqual(needed - there - {"libc6", "libgcc-s1", "libstdc++6", "zlib1g"}, set())

    def test_what_it_copies_exists(self):
        for source in re.findall(r"^COPY (?!--from)(\S+) ", dockerfile(), re.M):
            self.assertTrue((tools.ROOT / source).exists(), source)
        self.assertTrue((tools.ROOT / "models" / "gatefold-tiny-moe" / "config.json").exists())


def packages_of(paths):
    """That own the files. /lib is a link to /usr/lib, and dpkg knows a file under one of the two."""
    names = {p for path in paths for p in (path, "/usr" + path, str(pathlib.Path(path).resolve()))}
    done = subprocess.run(["dpkg-query", "-S", *names], capture_output=True, text=True, check=False)
    found = list(re.findall(r"^([^:,\s]+)(?::\w+)?: (\S+)$", done.stdout, re.M))
    owned = {pathlib.Path(path).resolve() for _, path in found}
    unowned = {p for p in paths if pathlib.Path(p).resolve() not in owned}
    return {package for package, _ in found} | unowned


def with_dependencies(packages):
    """They, and what they depend on, as far as it is installed here."""
    found, left = set(), list(packages)
    while left:
        name = left.pop()
        if name in found:
            continue
        done = subprocess.run(["dpkg-query", "-W", "-f", "${Depends}, ${Pre-Depends}", name],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            continue  # not installed here, so nothing here is linked to it
        found.add(name)
        left += [re.split(r"[ (:|]", part.strip())[0] for part in done.stdout.split(",") if part.strip()]
    return found


class ComposeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        tools.require_packages()
        import yaml
        cls.compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
        cls.services = {name: service for name, service in cls.compose["services"].items()
                        if "GATEFOLD_MODEL" in service.get("environment", {})}

    def test_has_all_there_is(self):
        self.assertEqual(set(self.compose["services"]),
                         {"router", "planner", "attention", "expert", "prometheus", "grafana"})
        self.assertEqual(self.services["expert"]["deploy"]["replicas"], 3)

    def test_flags_exist(self):
        for name, service in self.services.items():
            program, *args = service["command"]
            with self.subTest(service=name):
                known = chart_flags.flags_of(program)
                flags = {a.partition("=")[0].lstrip("-") for a in args}
                flags |= {v[len("GATEFOLD_"):].lower().replace("_", "-") for v in service["environment"]}
                self.assertEqual(flags - known, set())

    def test_services_are_hardened(self):
        for name, service in self.services.items():
            with self.subTest(service=name):
                self.assertIs(service["read_only"], True)
                self.assertEqual(service["user"], "65532:65532")
                self.assertEqual(service["cap_drop"], ["ALL"])

    def test_stops_take_no_longer_than_they_may(self):
        for name in ("attention", "expert"):
            service = self.services[name]
            [drain] = [int(a.partition("=")[2].rstrip("s")) for a in service["command"]
                       if a.startswith("--drain-limit=")]
            self.assertGreater(int(service["stop_grace_period"].rstrip("s")), drain)

    def test_nothing_listens_beyond_this_machine(self):
        for service in self.compose["services"].values():
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), port)

    def test_files_that_are_mounted_exist(self):
        for service in self.compose["services"].values():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue((DEPLOY / source).exists(), source)

    def test_prometheus_asks_every_service(self):
        config = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
        for name in self.services:
            self.assertIn(f"job_name: gatefold-{name}\n", config)
            self.assertIn(f"names: [{name}], type: A, port: 9090", config)


class RestartTest(unittest.TestCase):
    """local-cluster.sh --restart with programs that are ready when the test says so."""

    PROGRAM = """#!/usr/bin/env bash
for argument; do case $argument in --name=*) name=${argument#*=} ;; esac; done
echo >>"$STATE/$name.starts"
until [ "$name" != router ] || [ ! -e "$STATE/router-waits" ]; do sleep 0.05; done
printf 'listening on nowhere\\nready\\n'
exec sleep 1000
"""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.state = pathlib.Path(folder.name)
        for name in ("router-service", "attention-service", "expert-service"):
            (self.state / name).write_text(self.PROGRAM)
            (self.state / name).chmod(0o755)
        (self.state / "config.json").write_text("{}")
        with open(self.state / "log", "w") as log:
            cluster = subprocess.Popen(
                [DEPLOY / "local-cluster.sh", f"--model={self.state}", "--experts=1", "--attention=1",
                 "--port=7070", "--restart"], stdout=log, stderr=log,
                env={**os.environ, "GATEFOLD_BIN": str(self.state), "STATE": str(self.state)})
        self.addCleanup(cluster.wait, timeout=60)
        self.addCleanup(cluster.terminate)
        self.wait_for("all are ready", lambda: "\nready " in self.log())

    def wait_for(self, what, holds):
        end = time.monotonic() + 30
        while not holds():
            self.assertLess(time.monotonic(), end, f"not within 30 s: {what}; {self.log()}")
            time.sleep(0.02)

    def log(self):
        return (self.state / "log").read_text()

    def kill(self, name):
        os.kill(int(re.findall(rf"^{name} pid (\d+) ", self.log(), re.M)[-1]), signal.SIGKILL)

    def starts(self, name):
        return len((self.state / f"{name}.starts").read_text())

    def test_what_ends_while_a_router_waits_for_it_is_started_again(self):
        (self.state / "router-waits").touch()
        self.kill("router")
        self.wait_for("the router starts again", lambda: self.starts("router") == 2)
        self.kill("expert-0")
        self.wait_for("the expert starts again", lambda: self.starts("expert-0") == 2)
        (self.state / "router-waits").unlink()
        self.wait_for("both are announced", lambda: all(
            len(re.findall(rf"^{name} pid ", self.log(), re.M)) == 2 for name in ("router", "expert-0")))

    def test_what_is_killed_while_another_is_started_again_is_not_forgotten(self):
        self.kill("router")
        self.wait_for("the router's end is told", lambda: "router ended" in self.log())
        self.kill("expert-0")
        self.wait_for("the expert starts again", lambda: self.starts("expert-0") == 2)


class TargetsTest(unittest.TestCase):
    LOG = ("router pid 12 listening on 127.0.0.1:7070 metrics http://127.0.0.1:41000/metrics\n"
           "expert-1 pid 13 listening on unix:/x/e.sock metrics http://127.0.0.1:41001/metrics\n"
           "ready 127.0.0.1:7070\n")

    def run_script(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
            log.write(text)
            log.flush()
            return subprocess.run([DEPLOY / "prometheus" / "targets.sh", log.name],
                                  capture_output=True, text=True, check=False)

    def test_turns_a_cluster_log_into_targets(self):
        targets = json.loads(self.run_script(self.LOG).stdout)
        self.assertEqual(targets, [
            {"targets": ["127.0.0.1:41000"],
             "labels": {"release": "local", "component": "router", "pod": "router"}},
            {"targets": ["127.0.0.1:41001"],
             "labels": {"release": "local", "component": "expert", "pod": "expert-1"}}])

    def test_a_process_that_was_started_again_is_where_it_is_now(self):
        again = "expert-1 pid 15 listening on unix:/x/e.sock metrics http://127.0.0.1:41002/metrics\n"
        targets = json.loads(self.run_script(self.LOG + "expert-1 ended with code 137\n" + again).stdout)
        self.assertEqual([(t["labels"]["pod"], t["targets"]) for t in targets],
                         [("router", ["127.0.0.1:41000"]), ("expert-1", ["127.0.0.1:41002"])])

    def test_says_when_there_is_nothing(self):
        done = self.run_script("ready\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn("names no metrics address", done.stderr)


class DrillTest(unittest.TestCase):
    def run_drill(self, *flags):
        """With programs that are there and do nothing."""
        with tempfile.TemporaryDirectory() as folder:
            for name in ("gatefold", "drill_streams"):
                shutil.copy("/bin/false", pathlib.Path(folder, name))
            return subprocess.run([DEPLOY / "drill.sh", *flags], capture_output=True, text=True,
                                  env={**os.environ, "GATEFOLD_BIN": folder}, check=False)

    def test_refuses_numbers_that_are_none_before_it_starts_anything(self):
        for flag in ("--streams=x", "--streams=0", "--streams=1025", "--tokens=0", "--tokens=1e3",
                     "--seconds=x", "--port=0"):
            done = self.run_drill(flag)
            self.assertEqual(done.returncode, 2, flag)
            self.assertIn(flag.split("=")[0] + " is ", done.stderr)
