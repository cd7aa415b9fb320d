"""Every documented metric, every query of a dashboard and every alert, asked of a real Prometheus."""

import json
import math
import re
import time
import unittest

import live_cluster
from rules_cases import DASHBOARDS, documented_metrics

# What does not change in half a minute of load with one death. All else must move.
STEADY = {
    "gatefold_build_info": "always 1",
    "gatefold_expert_lanes": "of the build",
    "gatefold_router_coverage_ratio": "falls for less than the time between scrapes",
    "gatefold_requests_waiting_for_expert": "rises for no longer",
    "gatefold_router_hedges_total": "no call need be late",
    "gatefold_sequences_recomputed_total": "no sequence need be preempted or moved",
    "gatefold_router_degraded_rows_total": "only with --on-missing-expert=renormalise",
    "gatefold_request_truncated_tokens_total": "only where a request allows it",
    "gatefold_requests_mixed_numerics_total": "these shards compute alike",
    "gatefold_expert_loads_total": "experts are loaded before the first scrape",
    "gatefold_expert_load_bytes_total": "the same",
    "gatefold_expert_load_failures_total": "these shards fetch nothing from each other",
    "gatefold_expert_device_seconds_total": "these shards are on the CPU",
    "gatefold_attention_device_seconds_total": "and so is attention",
    "gatefold_expert_inflight": "the instant of a scrape rarely falls into a call of microseconds",
    "gatefold_router_expert_queue_tokens": "the same",
}

# What is only there on occasions that this cluster has not.
OCCASIONAL = {
    "gatefold_tls_certificate_expiry_seconds": "with TLS",
}


class LiveMetricsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not (live_cluster.BIN / "router-service").exists():
            raise unittest.SkipTest(f"{live_cluster.BIN} holds no router-service: build first")
        live_cluster.prometheus_tools.require("prometheus")
        cls.cluster = live_cluster.Cluster()
        cls.addClassCleanup(cls.cluster.stop)
        cls.cluster.start_services()
        cls.cluster.start_prometheus()
        cls.put_under_load()

    @classmethod
    def put_under_load(cls):
        """Load, the death of a shard in the middle of it, and its return."""
        cluster = cls.cluster
        cls.start = time.time()
        load = cluster.load(n_requests=300)
        live_cluster.wait_for("requests run",
                              lambda: cluster.router_total("gatefold_requests_total") > 3)
        # A call is to be under way at its death; mostly one is.
        for _ in range(5):
            cluster.kill("expert-1")
            cluster.restart("expert-1")
            time.sleep(2)
            if cluster.router_total("gatefold_router_retries_total") > 0:
                break
        output, errors = load.communicate(timeout=120)
        assert load.returncode == 0, errors
        cls.report = json.loads(output)
        # All must have been scraped after the end of it.
        end = time.time()
        live_cluster.wait_for("one more scrape of all", lambda: any(
            value > end + 1 for _, value in cluster.query("min(timestamp(up == 1))")))

    def age(self):
        """Since before the load began, as a duration of PromQL."""
        return f"{time.time() - self.start + 3:.0f}s"

    def test_no_request_noticed_the_death_of_a_shard(self):
        self.assertEqual(self.report["requests_failed"], 0)

    def test_every_documented_metric_is_there(self):
        for name, kind in documented_metrics().items():
            if name in OCCASIONAL:
                continue
            with self.subTest(metric=name):
                series = [f"{name}{s}" for s in ("_bucket", "_sum", "_count")] \
                    if kind == "histogram" else [name]
                for one in series:
                    self.assertTrue(self.cluster.query(one), one)

    def test_nothing_is_there_that_is_not_documented(self):
        names = {labels["__name__"] for labels, _ in
                 self.cluster.query('count by (__name__) ({__name__=~"gatefold_.*|grpc_.*"})')}
        kinds = documented_metrics()
        for name in names:
            base = name.rsplit("_", 1)[0] if name.endswith(("_bucket", "_sum", "_count")) else name
            self.assertTrue(name in kinds or kinds.get(base) == "histogram", name)

    def test_metrics_move_under_load(self):
        for name, kind in documented_metrics().items():
            if name in STEADY or name in OCCASIONAL:
                continue
            with self.subTest(metric=name):
                one = name + "_count" if kind == "histogram" else name
                # A series that came with its first value has moved, too.
                moved = self.cluster.query(
                    f"max(max_over_time({one}[{self.age()}]) - min_over_time({one}[{self.age()}])) > 0"
                    f" or max({one} unless {one} @ {self.start:.0f}) > 0")
                self.assertTrue(moved, one)

    def test_every_query_of_the_dashboards_has_an_answer(self):
        n_queries = 0
        for path in sorted(DASHBOARDS.glob("*.json")):
            dashboard = json.loads(path.read_text())
            for panel in dashboard["panels"]:
                for target in panel.get("targets", []):
                    n_queries += 1
                    expression = target["expr"]
                    for variable, value in (("$namespace", ".*"), ("$release", "local"),
                                            ("$__rate_interval", self.age()), ("$__range", self.age())):
                        expression = expression.replace(variable, value)
                    with self.subTest(dashboard=path.name, panel=panel["title"], query=expression):
                        answer = self.cluster.query(expression)
                        self.assertTrue(answer)
                        self.assertTrue(any(not math.isnan(value) for _, value in answer))
                        for name in re.findall(r"{{(\w+)}}", target.get("legendFormat", "")):
                            self.assertTrue(all(labels.get(name) for labels, _ in answer), name)
        self.assertGreater(n_queries, 40)

    def test_series_carry_the_labels_that_dashboards_go_by(self):
        for labels, _ in self.cluster.query("gatefold_build_info"):
            self.assertEqual(labels["release"], "local")
            self.assertIn(labels["component"], ("router", "attention", "expert"))
            self.assertTrue(labels["pod"].startswith(labels["component"]))
        self.assertTrue(self.cluster.query('gatefold_expert_rows_total{component="expert"}'))

    def test_alerts_are_loaded_and_can_be_evaluated(self):
        live_cluster.wait_for("rules were evaluated", lambda: all(
            rule["health"] != "unknown" for rule in self.rules()), seconds=10)
        for rule in self.rules():
            with self.subTest(alert=rule["name"]):
                self.assertEqual(rule["health"], "ok", rule.get("lastError"))
                self.assertNotEqual(rule["state"], "firing")
        self.assertGreaterEqual(len(self.rules()), 8)

    def rules(self):
        return [rule for group in self.cluster.get("rules")["groups"] for rule in group["rules"]]
