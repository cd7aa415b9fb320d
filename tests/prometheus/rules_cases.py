"""Alert rules and scrape configuration as promtool sees them, and as the documentation names them."""

import json
import pathlib
import re
import subprocess
import unittest

import prometheus_tools

DEPLOY = prometheus_tools.ROOT / "deploy" / "prometheus"
DASHBOARDS = prometheus_tools.ROOT / "helm" / "gatefold" / "files" / "dashboards"


def documented_metrics():
    """{name: kind} of docs/metrics.md."""
    text = (prometheus_tools.ROOT / "docs" / "metrics.md").read_text()
    return dict(re.findall(r"^\| `([a-z0-9_]+)` \| (gauge|counter|histogram) ", text, re.M))


def metrics_in(text):
    """Names of ours in expressions, without the suffixes of histograms."""
    names = set(re.findall(r"\b(?:gatefold|grpc)_[a-z0-9_]+", text)) - {"grpc_status", "grpc_method"}
    kinds = documented_metrics()
    return {re.sub(r"_(bucket|sum|count)$", "", n) if n not in kinds else n for n in names}


class RulesTest(unittest.TestCase):
    def promtool(self, *args):
        done = subprocess.run([prometheus_tools.require("promtool"), *args], cwd=DEPLOY,
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_rules_and_configuration_are_well_formed(self):
        self.assertIn("SUCCESS", self.promtool("check", "rules", "alerts.yaml"))
        self.assertIn("is valid", self.promtool("check", "config", "prometheus.yml"))

    def test_alerts_fire_and_resolve(self):
        self.assertIn("SUCCESS", self.promtool("test", "rules", "alerts_test.yaml"))

    def test_every_alert_has_a_test_that_fires_and_one_that_is_quiet(self):
        alerts = re.findall(r"^ +- alert: (\w+)", (DEPLOY / "alerts.yaml").read_text(), re.M)
        self.assertGreaterEqual(len(alerts), 8)
        tests = (DEPLOY / "alerts_test.yaml").read_text()
        for alert in alerts:
            with self.subTest(alert=alert):
                self.assertGreaterEqual(len(re.findall(rf"alertname: {alert}, exp_alerts: \[\]", tests)), 2)
                self.assertRegex(tests, rf"alertname: {alert}\n +exp_alerts:\n")

    def test_every_alert_is_in_the_troubleshooting(self):
        guide = (prometheus_tools.ROOT / "docs" / "deploy.md").read_text()
        for alert in re.findall(r"^ +- alert: (\w+)", (DEPLOY / "alerts.yaml").read_text(), re.M):
            self.assertIn(alert, guide)

    def test_alerts_and_dashboards_use_documented_metrics(self):
        known = set(documented_metrics())
        self.assertGreater(len(known), 30)
        for path in [DEPLOY / "alerts.yaml", *DASHBOARDS.glob("*.json")]:
            with self.subTest(path=path.name):
                self.assertEqual(metrics_in(path.read_text()) - known, set())


class FilesTest(unittest.TestCase):
    def test_the_chart_has_the_same_alerts_and_dashboards(self):
        chart = prometheus_tools.ROOT / "helm" / "gatefold" / "files"
        self.assertEqual((DEPLOY / "alerts.yaml").resolve(), chart / "alerts.yaml")
        self.assertEqual(pathlib.Path(DEPLOY.parent / "grafana" / "dashboards").resolve(),
                         chart / "dashboards")


class DashboardsTest(unittest.TestCase):
    def check_panels(self, kind, check):
        for path in sorted(DASHBOARDS.glob("*.json")):
            for panel in json.loads(path.read_text())["panels"]:
                if panel["type"] == kind:
                    with self.subTest(dashboard=path.name, panel=panel["title"]):
                        check(panel)

    def test_every_series_is_of_the_chosen_namespace_and_release(self):
        # A release has its name in its namespace alone.
        for path in sorted(DASHBOARDS.glob("*.json")):
            for panel in json.loads(path.read_text())["panels"]:
                for target in panel.get("targets", []):
                    with self.subTest(dashboard=path.name, panel=panel["title"]):
                        series = re.findall(r"\b(?:gatefold|grpc)_[a-z0-9_]+(?={)", target["expr"])
                        chosen = target["expr"].count('{namespace=~"$namespace",release=~"$release"')
                        self.assertTrue(series)
                        self.assertEqual(chosen, len(series))

    def test_a_number_has_a_colour_only_by_thresholds_of_its_own(self):
        # Where a panel has none Grafana puts some: green, and red from 80 on.
        self.check_panels("stat", lambda panel: self.assertNotEqual(
            "thresholds" in panel["fieldConfig"]["defaults"],
            panel.get("options", {}).get("colorMode") == "none"))

    def test_a_matrix_is_sorted_by_number(self):
        # Prometheus answers in no order, and labels are text: 10 would come before 2.
        def check(panel):
            ids = [one["id"] for one in panel.get("transformations", [])]
            if "groupingToMatrix" in ids:
                self.assertEqual(ids, ["convertFieldType", "sortBy", "groupingToMatrix", "sortBy"])
        self.check_panels("table", check)

    def test_no_line_of_a_stack_hides_another(self):
        # What is 0 has its line where the series below it has it, in another colour.
        def check(panel):
            custom = panel["fieldConfig"]["defaults"].get("custom", {})
            if "stacking" in custom:
                self.assertEqual(custom.get("lineWidth"), 0)
        self.check_panels("timeseries", check)
