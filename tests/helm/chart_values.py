"""What single values make of the objects."""

import pathlib
import re
import shutil
import tempfile
import unittest

import chart


class ChartValuesTest(unittest.TestCase):
    def flags(self, sets, component):
        [spec] = [s for _, labels, s in chart.pods(chart.objects((), sets))
                  if chart.component(labels) == component]
        return dict(a.lstrip("-").partition("=")[::2] for a in spec["containers"][0]["args"])

    def test_workers_believe_members_alone_and_routers_their_workers(self):
        sets = ("tls.enabled=true", "tls.existingSecret=certs")
        for worker in ("attention", "expert"):
            self.assertIn("tls-ca-file", self.flags(sets, worker))
            self.assertNotIn("tls-ca-file", self.flags((*sets, "tls.mutual=false"), worker))
            self.assertIn("tls-cert-file", self.flags((*sets, "tls.mutual=false"), worker))
        for caller in ("router", "planner"):
            flags = self.flags(sets, caller)
            self.assertEqual(flags["worker-tls-server-name"], chart.NAME + "-worker")
            self.assertTrue({"worker-tls-ca-file", "worker-tls-cert-file", "worker-tls-key-file"} <= set(flags))
        # Experts call each other, as what routers verify them by.
        self.assertEqual(self.flags(sets, "expert")["tls-server-name"], chart.NAME + "-worker")
        self.assertNotIn("tls-server-name", self.flags((*sets, "tls.mutual=false"), "expert"))
        # Clients need no certificate for it, and get none of the cluster's.
        self.assertNotIn("tls-ca-file", self.flags(sets, "router"))
        self.assertNotIn("tls-cert-file", self.flags(sets, "planner"))

    def test_certificates_of_workers_are_for_the_name_that_routers_verify(self):
        [path] = [p for p in chart.EXAMPLES if p.name == "mtls-cert-manager.yaml"]
        objs = chart.objects((path,))
        certificates = {o["metadata"]["name"]: o["spec"] for o in chart.of_kind(objs, "Certificate")}
        self.assertEqual(len(certificates), 5)
        for worker in ("attention", "expert"):
            spec = certificates[f"{chart.NAME}-{worker}"]
            self.assertEqual(spec["dnsNames"], [chart.NAME + "-worker"])
            self.assertIn("server auth", spec["usages"])
            self.assertEqual(spec["issuerRef"]["name"], "gatefold-cluster")
        public = certificates[chart.NAME + "-router"]
        self.assertEqual(public["issuerRef"]["name"], "public")
        [args] = [s["containers"][0]["args"] for n, _, s in chart.pods(objs) if n.endswith("-test")]
        host = [a for a in args if a.startswith("--router=")][0][len("--router="):].partition(":")[0]
        self.assertIn(host, public["dnsNames"])
        for caller in ("router-client", "planner", "expert"):
            self.assertIn("client auth", certificates[f"{chart.NAME}-{caller}"]["usages"])

    def test_config_changes_restart_pods(self):
        def sums(*sets):
            return {o["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
                    for o in chart.workloads(chart.objects((), sets))}
        before, after = sums(), sums("config.GATEFOLD_ISA=scalar")
        self.assertEqual((len(before), len(after)), (1, 1))
        self.assertNotEqual(before, after)

    def test_a_group_has_what_it_says_and_the_rest_from_expert(self):
        objs = chart.objects((), ("expert.replicas=7", "groups.cpu.podDisruptionBudget.enabled=false",
                                  "groups.big.threads=3"))
        cpu = chart.named(objs, "Deployment", chart.NAME + "-expert-cpu")
        big = chart.named(objs, "Deployment", chart.NAME + "-expert-big")
        self.assertEqual((cpu["spec"]["replicas"], big["spec"]["replicas"]), (7, 7))
        self.assertIn("--threads=3", big["spec"]["template"]["spec"]["containers"][0]["args"])
        budgets = {o["metadata"]["name"] for o in chart.of_kind(objs, "PodDisruptionBudget")}
        self.assertIn(chart.NAME + "-expert-big", budgets)
        self.assertNotIn(chart.NAME + "-expert-cpu", budgets)

    def test_the_only_gpu_is_free_for_the_next_pod(self):
        [path] = [p for p in chart.EXAMPLES if p.name == "one-gpu-node.yaml"]
        for values, rolling in (((path,), {"maxUnavailable": 1, "maxSurge": 0}),
                                ((), {"maxUnavailable": 0, "maxSurge": 1})):
            [strategy] = [o["spec"]["strategy"] for o in chart.of_kind(chart.objects(values), "Deployment")
                          if chart.component(o["metadata"]["labels"]) == "expert"]
            self.assertEqual(strategy, {"type": "RollingUpdate", "rollingUpdate": rolling})

    def test_the_narrower_of_two_labels_counts_and_selectors_keep_theirs(self):
        objs = chart.objects((), ("commonLabels.team=x", "router.podLabels.team=y", r"commonLabels.app\.kubernetes\.io/component=c",
                                  r"commonLabels.app\.kubernetes\.io/part-of=p", r"router.podLabels.gatefold\.io/group=g"))
        router = chart.named(objs, "Deployment", chart.NAME + "-router")
        labels, pod = router["metadata"]["labels"], router["spec"]["template"]["metadata"]["labels"]
        self.assertEqual((labels["team"], pod["team"]), ("x", "y"))
        self.assertEqual(labels["app.kubernetes.io/part-of"], "p")
        self.assertEqual((chart.component(labels), chart.component(pod)), ("router", "router"))

    def test_a_version_with_a_build_in_it_is_a_label(self):
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "gatefold"
            shutil.copytree(chart.CHART, copy)
            about = (copy / "Chart.yaml").read_text()
            (copy / "Chart.yaml").write_text(re.sub(r"(?m)^version: (.*)$", r"version: \1+g1234567", about))
            objs = chart.parse(chart.run_helm("template", "r", str(copy), "--kube-version", chart.KUBE_VERSION))
        for o in objs:
            self.assertRegex(o["metadata"]["labels"]["helm.sh/chart"], r"^gatefold-[0-9.]+_g1234567$")

    def test_the_tag_of_a_group_beats_the_digest_of_all(self):
        digest = "sha256:" + "0" * 64
        objs = chart.objects((), ("image.repository=x/g", f"image.digest={digest}", "groups.gpu.image.tag=cuda"))
        images = {name: spec["containers"][0]["image"] for name, _, spec in chart.pods(objs)}
        self.assertEqual(images.pop(chart.NAME + "-expert-gpu"), "x/g:cuda")
        self.assertEqual(set(images.values()), {f"x/g@{digest}"})

    def test_examples_mix_numerics_where_their_experts_do(self):
        for path in chart.EXAMPLES:
            args = {}
            for _, labels, spec in chart.pods(chart.objects((path,))):
                args.setdefault(chart.component(labels), []).extend(spec["containers"][0]["args"])
            backends = {a for a in args["expert"] if a.startswith("--backend=")}
            with self.subTest(example=path.name):
                self.assertIn(f"--allow-mixed-numerics={'true' if len(backends) > 1 else 'false'}", args["router"])

    def test_a_models_name_is_passed_on_whatever_yaml_makes_of_it(self):
        for name in ("a: b", "moe #2", 'the "old" one'):
            self.assertEqual(self.flags((f"model.name={name}",), "router")["model-name"], name)

    def test_capacity_is_four_fifths_of_the_memory(self):
        for memory, capacity in (("1Gi", 858993459), ("1.5Gi", 1288490188), ("10M", 8000000),
                                 ("4294967296", 3435973836)):
            [args] = [spec["containers"][0]["args"] for _, labels, spec in chart.pods(chart.objects(
                (), (f"expert.resources.limits.memory={memory}",))) if chart.component(labels) == "expert"]
            self.assertIn(f"--capacity={capacity}", args)

    def test_what_fetches_its_model_is_not_missed_yet(self):
        for o in chart.of_kind(chart.objects((), ("metrics.podMonitor.enabled=true",)), "PodMonitor"):
            [endpoint] = o["spec"]["podMetricsEndpoints"]
            self.assertIn({"sourceLabels": ["__meta_kubernetes_pod_phase"], "action": "keep", "regex": "Running"},
                          endpoint["relabelings"])

    def test_pods_are_scaled_by_metrics_that_they_have(self):
        text = (chart.tools.ROOT / "docs" / "metrics.md").read_text()
        service_of = dict(re.findall(r"^\| `(\w+)` \|[^|]*\|[^|]*\|[^|]*\| (\w+) \|", text, re.M))
        seen = set()
        def check(objs):
            for o in chart.of_kind(objs, "HorizontalPodAutoscaler"):
                component = chart.component(o["metadata"]["labels"])
                for metric in o["spec"]["metrics"]:
                    name = metric.get("pods", metric.get("external", {})).get("metric", {}).get("name")
                    if name == "gatefold_expert_busy_lanes":  # of a rule in docs/deploy.md
                        self.assertEqual(component, "expert")
                        lanes = 2 if o["metadata"]["name"].endswith("-big") else 1
                        self.assertEqual(metric["pods"]["target"]["averageValue"], f"{500 * lanes}m")
                    elif name:
                        self.assertEqual(service_of[name] == component, "pods" in metric, name)
                    seen.add((component, metric["type"]))
            for o in chart.of_kind(objs, "ScaledObject"):
                for trigger in o["spec"]["triggers"]:
                    if trigger["type"] == "prometheus":
                        self.assertEqual(trigger["metadata"]["ignoreNullValues"], "false")
                    for name in re.findall(r"gatefold_\w+", trigger["metadata"].get("query", "")):
                        self.assertIn(name, service_of)
        for what, objs in chart.renderings():
            with self.subTest(rendering=what):
                check(objs)
        self.assertEqual(seen, {("router", "Resource"), ("router", "Pods"), ("attention", "Pods"),
                                ("attention", "External"), ("expert", "Pods")})
