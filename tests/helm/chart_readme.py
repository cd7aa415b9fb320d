"""The README says what the values are, and every value is explained."""

import pathlib
import shutil
import tempfile
import unittest

import chart
import readme


class ChartReadmeTest(unittest.TestCase):
    def setUp(self):
        self.values = (chart.CHART / "values.yaml").read_text()

    def test_the_table_is_that_of_the_values(self):
        text = (chart.CHART / "README.md").read_text()
        self.assertEqual(text, readme.updated(text, self.values), "run tests/helm/readme.py")

    def test_every_value_has_a_comment(self):
        self.assertEqual(readme.uncommented(self.values), [])

    def test_the_examples_are_all_named(self):
        text = (chart.CHART / "README.md").read_text()
        for path in chart.EXAMPLES:
            self.assertIn(f"examples/{path.name}", text)

    def test_every_object_kind_is_named(self):
        text = (chart.CHART / "README.md").read_text()
        for _, objs in chart.renderings():
            for o in objs:
                self.assertIn(o["kind"], text)



class ChartNotesTest(unittest.TestCase):
    """NOTES.txt is only shown by an install, so it is rendered here as a value of a ConfigMap."""

    def notes(self, *sets):
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "gatefold"
            shutil.copytree(chart.CHART, copy)
            (copy / "templates" / "NOTES.txt").rename(copy / "notes.txt")
            (copy / "templates" / "notes.yaml").write_text(
                "{apiVersion: v1, kind: ConfigMap, metadata: {name: notes}, "
                'data: {notes: {{ tpl (.Files.Get "notes.txt") . | quote }}}}')
            args = [a for text in sets for a in ("--set", text)]
            [o] = chart.parse(chart.run_helm(
                "template", chart.RELEASE, str(copy), "--namespace", chart.NAMESPACE, "--kube-version",
                chart.KUBE_VERSION, "--show-only", "templates/notes.yaml", *args))
            return o["data"]["notes"]

    def test_give_the_next_three_commands_and_how_to_scale(self):
        notes = self.notes()
        for command in ("kubectl -n ns rollout status deploy/r-gatefold-router",
                        "helm test r -n ns --logs",
                        "kubectl -n ns port-forward svc/r-gatefold-router 7070",
                        "kubectl -n ns scale deploy/r-gatefold-expert-cpu --replicas=5"):
            self.assertIn(command, notes)
        self.assertIn("the toy", notes)
        self.assertIn("expert-cpu --replicas=22", self.notes("groups.cpu.replicas=20"))
        self.assertNotIn("WARNING", notes)

    def test_call_the_router_as_it_wants_to_be_called(self):
        def call(*sets):
            return [line for line in self.notes(*sets).splitlines() if "gatefold generate" in line]
        self.assertEqual(call(), ['  gatefold generate --router 127.0.0.1:7070 "Once upon a time"'])
        tls = ("tls.enabled=true", "tls.existingSecret=certs")
        self.assertEqual(call(*tls, "apiKeys.existingSecret=k"), [
            "  gatefold generate --router 127.0.0.1:7070 --tls-ca-file ca.crt "
            '--tls-server-name r-gatefold-router.ns.svc --api-key-file YOUR_KEY "Once upon a time"'])
        self.assertIn("get secret public -o 'jsonpath={.data.ca\\.crt}'",
                      self.notes(*tls, "tls.router.existingSecret=public"))
        self.assertIn(" --tls-cert-file", call(*tls, "tls.router.clientCertificates=true",
                                               "tests.tlsSecret=c")[0])

    def test_warn_of_an_open_router(self):
        self.assertIn("without TLS and without API keys", self.notes("router.service.type=LoadBalancer"))
        self.assertNotIn("WARNING", self.notes("router.service.type=LoadBalancer", "tls.enabled=true",
                                               "tls.existingSecret=a"))

    def test_say_what_is_still_to_do(self):
        self.assertIn("copy the checkpoint there as m", self.notes("model.source=pvc", "model.path=m"))
        self.assertNotIn("copy", self.notes("model.source=pvc", "model.pvc.volumeName=v"))
