"""The init container's script, run here against a web server of the test's own."""

import functools
import hashlib
import http.server
import pathlib
import shutil
import subprocess
import tempfile
import threading
import unittest

import chart

CONTENT = b"weights\n" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.SimpleHTTPRequestHandler):
    requests = []  # (path, headers)

    def do_GET(self):
        Server.requests.append((self.path, dict(self.headers)))
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

    def run_script(self, sha=SHA, path="m/a.safetensors", url="/part", header=None):
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
        return subprocess.run([*container["command"], script], capture_output=True, text=True,
                              check=False)

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
