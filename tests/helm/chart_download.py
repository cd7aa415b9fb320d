"""The init container's script, run here against a web server of the test's own."""

import functools
import hashlib
import http.server
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

import chart

CONTENT = b"weights\n" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.SimpleHTTPRequestHandler):
    requests = []  # (path, headers)

    def do_GET(self):
        Server.requests.append((self.path, dict(self.headers)))
        if self.path == "/slow":
            self.rfile.read(1)  # until the other end is gone
        super().do_GET()

    def log_message(self, *args):
        pass


class ChartDownloadTest(unittest.TestCase):
    def setUp(self):
        for program in ("curl", "sha256sum"):
            if not shutil.which(program):
                self.skipTest(f"there is no {program}")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "served").mkdir()
        (self.folder / "models").mkdir()
        (self.folder / "served" / "part").write_bytes(CONTENT)
        handler = functools.partial(Server, directory=self.folder / "served")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        Server.requests.clear()

    def command(self, sha=SHA, path="m/a.safetensors", url="/part", header=None):
        sets = ["networkPolicy.enabled=false", "model.source=download", f"model.download.files[0].path={path}",
                f"model.download.files[0].url={self.url}{url}",
                f"model.download.files[0].sha256={sha}"]
        if header:
            sets.append("model.download.headerSecret=token")
            (self.folder / "header").write_text(header)
        objs = chart.objects((), tuple(sets))
        init = chart.named(objs, "Deployment", chart.NAME + "-router")["spec"]["template"]["spec"]
        [container] = init["initContainers"]
        script = container["args"][0].replace("/models", str(self.folder / "models"))
        script = script.replace("/etc/gatefold/download", str(self.folder))
        # A refusal is not tried again for long.
        script = script.replace("--retry 5 --retry-all-errors", "")
        return [*container["command"], script]

    def run_script(self, **arguments):
        return subprocess.run(self.command(**arguments), capture_output=True, text=True, check=False)

    def test_fetches_into_the_folder_that_services_read(self):
        done = self.run_script()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.folder / "models/m/a.safetensors").read_bytes(), CONTENT)
        self.assertEqual([p.name for p in (self.folder / "models/m").iterdir()], ["a.safetensors"])

    def test_does_not_fetch_what_is_there(self):
        self.run_script()
        self.assertEqual(self.run_script().returncode, 0)
        self.assertEqual(len(Server.requests), 1)

    def test_fetches_again_what_is_broken(self):
        self.run_script()
        (self.folder / "models/m/a.safetensors").write_bytes(b"half")
        self.assertEqual(self.run_script().returncode, 0)
        self.assertEqual((self.folder / "models/m/a.safetensors").read_bytes(), CONTENT)

    def test_believes_nothing_whose_digest_differs(self):
        done = self.run_script(sha="0" * 64)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"has sha256 {SHA}, must be {'0' * 64}", done.stderr)
        self.assertFalse((self.folder / "models/m/a.safetensors").exists())

    def test_fails_where_nothing_is(self):
        self.assertNotEqual(self.run_script(url="/nothing").returncode, 0)

    def test_sends_the_header_of_the_secret(self):
        done = self.run_script(header="Authorization: Bearer secret\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(Server.requests[0][1]["Authorization"], "Bearer secret")
        self.assertNotIn("secret", done.stdout + done.stderr)

    def test_ends_at_once_when_it_is_told_to(self):
        with subprocess.Popen(self.command(url="/slow"), start_new_session=True) as shell:
            while not Server.requests:
                time.sleep(0.01)
            shell.terminate()
            # By itself: as the first process of a container it would not be ended.
            self.assertEqual(shell.wait(10), 143)
            os.killpg(shell.pid, signal.SIGKILL)

    def test_has_the_variables_of_its_workload(self):
        proxy = [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]
        objs = chart.objects((), ("model.source=download", "router.extraEnv[0].name=HTTPS_PROXY",
                                  "router.extraEnv[0].value=http://proxy:3128",
                                  "model.download.files[0].path=x", "model.download.files[0].url=https://x/y",
                                  "model.download.files[0].sha256=" + SHA))
        for component, env in (("router", proxy), ("expert-cpu", None)):
            spec = chart.named(objs, "Deployment", f"{chart.NAME}-{component}")["spec"]["template"]["spec"]
            self.assertEqual(spec["initContainers"][0].get("env"), env)
