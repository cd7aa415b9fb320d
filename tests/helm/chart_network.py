"""NetworkPolicies let through the arrows of the design and nothing else.

They are not compared as text: each possible connection is asked for, from every kind of pod to
every port of every other, and the answer must be the design's.
"""

import unittest

import chart

PORTS = {"router": 7070, "expert": 7071, "attention": 7072, "planner": None}
ARROWS = {("client", "router"), ("test", "router"), ("router", "attention"), ("router", "expert"),
          ("planner", "expert"), ("expert", "expert")}
STRANGER = {"app.kubernetes.io/name": "stranger"}
SCRAPER = {"app.kubernetes.io/name": "prometheus"}


def peer_matches(peer, labels, same_namespace):
    if "ipBlock" in peer:
        return False
    if "namespaceSelector" not in peer and not same_namespace:
        return False
    return chart.selects(peer.get("podSelector", {}).get("matchLabels", {}), labels)


def allows(rules, direction, labels, same_namespace, port, protocol="TCP"):
    """direction: "from" of an ingress rule, "to" of an egress rule."""
    for rule in rules:
        ports = rule.get("ports")
        if ports and {"port": port, "protocol": protocol} not in ports:
            continue
        if direction not in rule:
            return True
        if any(peer_matches(p, labels, same_namespace) for p in rule[direction]):
            return True
    return False


class Cluster:
    """Pods by component, with their policies; outsiders have none."""

    def __init__(self, objs):
        self.pods = {}
        for _, labels, _ in chart.pods(objs):
            self.pods.setdefault(chart.component(labels), labels)
        self.policies = [o["spec"] for o in chart.of_kind(objs, "NetworkPolicy")]
        for policy in self.policies:
            assert policy["policyTypes"] == ["Ingress", "Egress"]

    def policies_of(self, labels):
        return [p for p in self.policies if chart.selects(p["podSelector"]["matchLabels"], labels)]

    def may_connect(self, source, target, port, same_namespace=True):
        out, into = self.policies_of(source), self.policies_of(target)
        if out and not any(allows(p["egress"], "to", target, True, port) for p in out):
            return False
        return not into or any(allows(p["ingress"], "from", source, same_namespace, port)
                               for p in into)


class ChartNetworkTest(unittest.TestCase):
    def each(self, check):
        """check(rendering, cluster)"""
        for what, objs in chart.renderings():
            with self.subTest(rendering=what):
                if chart.of_kind(objs, "NetworkPolicy"):
                    check(what, Cluster(objs))
                else:
                    self.assertIn("networkPolicy.enabled=false", what)

    def test_pods_reach_each_other_along_the_arrows_alone(self):
        def check(_, cluster):
            for source, source_labels in cluster.pods.items():
                for target, port in PORTS.items():
                    if port is None:
                        continue
                    self.assertEqual(
                        cluster.may_connect(source_labels, cluster.pods[target], port),
                        (source, target) in ARROWS, f"{source} to {target}:{port}")
        self.each(check)

    def test_nobody_reaches_ports_that_are_not_his(self):
        def check(_, cluster):
            for source_labels in [*cluster.pods.values(), STRANGER]:
                for target in PORTS:
                    for port in (9091, 22, 443):
                        self.assertFalse(
                            cluster.may_connect(source_labels, cluster.pods[target], port))
        self.each(check)

    def test_strangers_reach_the_router_alone(self):
        cluster = Cluster(chart.objects())
        for same_namespace in (True, False):
            for target, port in PORTS.items():
                if port:
                    self.assertEqual(
                        cluster.may_connect(STRANGER, cluster.pods[target], port, same_namespace),
                        target == "router", target)

    def test_named_clients_alone_reach_the_router(self):
        objs = chart.objects((), ("networkPolicy.clients[0].podSelector.matchLabels.a=b",))
        cluster = Cluster(objs)
        router = cluster.pods["router"]
        self.assertTrue(cluster.may_connect({"a": "b"}, router, 7070))
        self.assertFalse(cluster.may_connect({"a": "b"}, router, 7070, same_namespace=False))
        self.assertFalse(cluster.may_connect(STRANGER, router, 7070))
        self.assertTrue(cluster.may_connect(cluster.pods["test"], router, 7070))

    def test_prometheus_scrapes_all_and_nobody_else_does(self):
        cluster = Cluster(chart.objects())
        for target in PORTS:
            labels = cluster.pods[target]
            self.assertTrue(cluster.may_connect(SCRAPER, labels, 9090, same_namespace=False))
            self.assertFalse(cluster.may_connect(STRANGER, labels, 9090))
            if PORTS[target] and target != "router":
                self.assertFalse(cluster.may_connect(SCRAPER, labels, PORTS[target], False))

    def test_only_those_who_look_for_others_ask_dns(self):
        def check(what, cluster):
            downloads = "model.source=download" in what
            for name, labels in cluster.pods.items():
                [policy] = cluster.policies_of(labels)
                asks = any({"port": 53, "protocol": "UDP"} in rule["ports"] for rule in policy["egress"])
                self.assertEqual(asks, downloads and name != "test" or name in
                                 ("router", "planner", "test"), name)
        self.each(check)

    def test_the_world_is_reached_for_downloads_alone(self):
        def check(what, cluster):
            for name, labels in cluster.pods.items():
                [policy] = cluster.policies_of(labels)
                outside = [r for r in policy["egress"] if "to" not in r
                           and not all(p["port"] == 53 for p in r["ports"])]
                self.assertEqual(bool(outside), "model.source=download" in what and name != "test", name)
        self.each(check)
