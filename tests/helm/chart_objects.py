"""What must hold for the objects of every rendering."""

import re
import unittest

import chart
import tools

SERVICE_PORTS = {"router": 7070, "expert": 7071, "attention": 7072}
METRICS, HEALTH = 9090, 9091


class ChartObjectsTest(unittest.TestCase):
    def each(self, check):
        """check(objects) for every rendering."""
        for what, objs in chart.renderings():
            with self.subTest(rendering=what):
                check(objs)

    def each_workload(self, check):
        """check(objects, workload, component, pod spec)."""
        for what, objs in chart.renderings():
            for o in chart.workloads(objs):
                with self.subTest(rendering=what, name=o["metadata"]["name"]):
                    template = o["spec"]["template"]
                    check(objs, o, chart.component(template["metadata"]["labels"]), template["spec"])

    def each_pod(self, check):
        """check(objects, labels, pod spec), pods of hooks too."""
        for what, objs in chart.renderings():
            for name, labels, spec in chart.pods(objs):
                with self.subTest(rendering=what, name=name):
                    check(objs, labels, spec)

    def test_selectors_select_their_own_pods_alone(self):
        def check(objs):
            for o in chart.workloads(objs):
                selector = o["spec"]["selector"]["matchLabels"]
                selected = [n for n, labels, _ in chart.pods(objs) if chart.selects(selector, labels)]
                self.assertEqual(selected, [o["metadata"]["name"]])
                # They cannot be changed later, so they have nothing in them that changes.
                for key in selector:
                    self.assertNotIn("version", key)
                    self.assertNotIn("chart", key)
            for o in chart.of_kind(objs, "PodDisruptionBudget", "PodMonitor", "NetworkPolicy"):
                spec = o["spec"]
                selector = (spec.get("selector") or spec.get("podSelector"))["matchLabels"]
                selected = [n for n, labels, _ in chart.pods(objs) if chart.selects(selector, labels)]
                self.assertEqual(selected, [o["metadata"]["name"]])
        self.each(check)

    def test_services_select_a_component_and_name_its_port(self):
        def check(objs):
            services = chart.of_kind(objs, "Service")
            self.assertEqual(len(services), 4)
            for o in services:
                component = chart.component(o["spec"]["selector"])
                selected = [(labels, spec) for _, labels, spec in chart.pods(objs)
                            if chart.selects(o["spec"]["selector"], labels)]
                self.assertTrue(selected)
                [port] = o["spec"]["ports"]
                self.assertEqual(port["port"], SERVICE_PORTS[component])
                for labels, spec in selected:
                    self.assertEqual(chart.component(labels), component)
                    names = [p["name"] for c in spec["containers"] for p in c["ports"]]
                    self.assertIn(port["targetPort"], names)
                headless = o["metadata"]["name"].endswith("-headless")
                self.assertEqual(o["spec"].get("clusterIP") == "None", headless)
                if headless and component != "router":
                    # Routers must see pods that load or drain.
                    self.assertTrue(o["spec"]["publishNotReadyAddresses"])
        self.each(check)

    def test_every_port_is_named_and_used(self):
        def check(_objs, o, component, spec):
            [container] = spec["containers"]
            wanted = {"metrics": METRICS, "health": HEALTH}
            if component in SERVICE_PORTS:
                wanted["grpc"] = SERVICE_PORTS[component]
                self.assertIn(f"--listen=0.0.0.0:{wanted['grpc']}", container["args"])
            self.assertEqual({p["name"]: p["containerPort"] for p in container["ports"]}, wanted)
        self.each_workload(check)

    def test_operators_are_served_on_loopback_alone(self):
        def check(_objs, _o, component, spec):
            listens = [a for a in spec["containers"][0]["args"] if a.startswith("--admin-listen=")]
            if component in ("router", "planner"):
                self.assertEqual(listens, ["--admin-listen=127.0.0.1:7073"])
            else:
                self.assertEqual(listens, [])
        self.each_workload(check)

    def test_ports_of_the_config_are_those_of_the_pods(self):
        def check(objs):
            [config] = [o for o in chart.of_kind(objs, "ConfigMap")
                        if o["metadata"]["name"].endswith("-config")]
            self.assertEqual(config["data"]["GATEFOLD_METRICS_PORT"], str(METRICS))
            self.assertEqual(config["data"]["GATEFOLD_HEALTH_PORT"], str(HEALTH))
            for _, _, spec in chart.pods(objs):
                for container in spec["containers"]:
                    if container["command"] != ["gatefold"]:
                        self.assertEqual(container["envFrom"], [
                            {"configMapRef": {"name": config["metadata"]["name"]}}])
        self.each(check)

    def test_probes_ask_the_health_port(self):
        periods = {"startup": (5, 360), "readiness": (2, 2), "liveness": (10, 3)}
        def check(_objs, _o, component, spec):
            for name, (period, threshold) in periods.items():
                probe = spec["containers"][0][name + "Probe"]
                self.assertEqual(probe["grpc"], {"port": HEALTH, "service": name})
                self.assertEqual(probe["periodSeconds"], period)
                self.assertEqual(probe["failureThreshold"], threshold)
        self.each_workload(check)

    def test_grace_is_above_pre_stop_and_drain(self):
        def check(_objs, _o, component, spec):
            [container] = spec["containers"]
            sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            limits = [a for a in container["args"] if a.startswith("--drain-limit=")]
            drain = int(limits[0].partition("=")[2].rstrip("s")) if limits else 0
            self.assertGreaterEqual(spec["terminationGracePeriodSeconds"], sleep + drain + 10)
        self.each_workload(check)

    def test_a_deployment_has_failed_later_than_its_pods(self):
        def check(_objs, o, _component, spec):
            if o["kind"] == "Deployment":
                startup = spec["containers"][0]["startupProbe"]
                self.assertGreater(o["spec"]["progressDeadlineSeconds"],
                                   startup["periodSeconds"] * startup["failureThreshold"])
        self.each_workload(check)

    def test_autoscaled_workloads_have_no_replicas(self):
        autoscaled = []
        def check(objs, o, component, spec):
            scalers = [s for s in chart.of_kind(objs, "HorizontalPodAutoscaler", "ScaledObject")
                       if s["spec"]["scaleTargetRef"]["name"] == o["metadata"]["name"]]
            self.assertLessEqual(len(scalers), 1)
            self.assertEqual("replicas" in o["spec"], not scalers)
            for s in scalers:
                autoscaled.append(s)
                self.assertEqual(s["spec"]["scaleTargetRef"]["kind"], o["kind"])
                low = s["spec"].get("minReplicas", s["spec"].get("minReplicaCount"))
                self.assertGreaterEqual(low, 1)
        self.each_workload(check)
        self.assertGreater(len(autoscaled), 6)

    def test_workloads_are_of_the_kinds_they_must_be(self):
        def check(_objs, o, component, spec):
            self.assertEqual(o["kind"], "StatefulSet" if component == "attention" else "Deployment")
            args = spec["containers"][0]["args"]
            if component == "attention":
                self.assertEqual(o["spec"]["podManagementPolicy"], "Parallel")
            if component == "planner":
                self.assertEqual((o["spec"]["replicas"], o["spec"]["strategy"]["type"]), (1, "Recreate"))
                self.assertIn("--planner=only", args)
            if component == "router":
                self.assertIn("--planner=off", args)
            if component == "expert":
                # Ordinals mean nothing: the planner says what a pod holds.
                self.assertIn("--experts=none", args)
        self.each_workload(check)

    def test_routers_look_for_workers_by_the_headless_names(self):
        def check(objs):
            services = {o["metadata"]["name"] for o in chart.of_kind(objs, "Service")}
            for name, labels, spec in chart.pods(objs):
                args = dict(a.split("=", 1) for a in spec["containers"][0]["args"] if "=" in a)
                targets = {"router": ["--experts", "--attention"], "planner": ["--experts"]}
                for flag in targets.get(chart.component(labels), []):
                    kind, host, port = args[flag].split(":")
                    service, namespace, svc = host.split(".")
                    self.assertEqual((kind, namespace, svc), ("dns", chart.NAMESPACE, "svc"))
                    self.assertIn(service, services)
                    self.assertEqual(int(port), SERVICE_PORTS[flag.strip("-").rstrip("s")])
        self.each(check)

    def test_pods_are_hardened(self):
        def check(objs):
            for name, _, spec in chart.pods(objs):
                with self.subTest(name=name):
                    self.assertIs(spec["automountServiceAccountToken"], False)
                    # GATEFOLD_ROUTER_PORT=tcp://... would be a flag.
                    self.assertIs(spec["enableServiceLinks"], False)
                    self.assertIs(spec["securityContext"]["runAsNonRoot"], True)
                    self.assertGreater(spec["securityContext"]["runAsUser"], 0)
                    self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                    for container in spec["containers"] + spec.get("initContainers", []):
                        context = container["securityContext"]
                        self.assertIs(context["readOnlyRootFilesystem"], True)
                        self.assertIs(context["allowPrivilegeEscalation"], False)
                        self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                    for volume in spec.get("volumes", []):
                        self.assertNotIn("hostPath", volume)
                        if "secret" in volume:
                            self.assertEqual(volume["secret"]["defaultMode"], 0o440)
            for account in chart.of_kind(objs, "ServiceAccount"):
                self.assertIs(account["automountServiceAccountToken"], False)
        self.each(check)

    def test_mounts_have_volumes_and_none_can_be_written(self):
        def check(objs):
            for name, _, spec in chart.pods(objs):
                with self.subTest(name=name):
                    volumes = {v["name"] for v in spec.get("volumes", [])}
                    mounts = [m for c in spec["containers"] for m in c.get("volumeMounts", [])]
                    init = [m for c in spec.get("initContainers", []) for m in c["volumeMounts"]]
                    self.assertEqual({m["name"] for m in mounts + init}, volumes)
                    self.assertTrue(all(m.get("readOnly") for m in mounts))
        self.each(check)

    def test_files_that_flags_name_are_mounted(self):
        def check(objs):
            for name, _, spec in chart.pods(objs):
                [container] = spec["containers"]
                paths = [m["mountPath"] + "/" for m in container.get("volumeMounts", [])]
                for arg in container["args"]:
                    flag, _, value = arg.partition("=")
                    if flag.endswith("-file"):
                        self.assertTrue(any(value.startswith(p) for p in paths), f"{name} {arg}")
        self.each(check)

    def test_what_a_secret_or_config_is_called_exists_or_is_the_users(self):
        def check(objs):
            made = {o["spec"]["secretName"] for o in chart.of_kind(objs, "Certificate")}
            claims = {o["metadata"]["name"] for o in chart.of_kind(objs, "PersistentVolumeClaim")}
            for name, _, spec in chart.pods(objs):
                for volume in spec.get("volumes", []):
                    if "persistentVolumeClaim" in volume and claims:
                        self.assertIn(volume["persistentVolumeClaim"]["claimName"], claims)
                    if volume["name"] in ("tls", "worker-tls") and made:
                        self.assertIn(volume["secret"]["secretName"], made)
        self.each(check)

    def test_a_claim_that_names_its_volume_gets_no_default_class(self):
        def storage_class(*sets):
            objs = chart.objects((), ("model.source=pvc", "model.path=m", *sets))
            [claim] = chart.of_kind(objs, "PersistentVolumeClaim")
            return claim["spec"].get("storageClassName")
        self.assertIsNone(storage_class())
        self.assertEqual(storage_class("model.pvc.volumeName=v"), "")
        self.assertEqual(storage_class("model.pvc.volumeName=v", "model.pvc.storageClassName=fast"), "fast")

    def test_the_chart_is_of_the_programs_version(self):
        project = (tools.ROOT / "CMakeLists.txt").read_text()
        version = re.search(r"project\(gatefold VERSION (\S+)", project).group(1)
        self.assertIn(f"\nappVersion: {version}\n", (chart.CHART / "Chart.yaml").read_text())
