"""Renders the chart and finds things in what comes out."""

import functools
import subprocess

import tools

CHART = tools.ROOT / "helm" / "gatefold"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
# A current one; its schemas come with kubernetes-validate.
KUBE_VERSION = "1.34.0"
RELEASE, NAMESPACE, NAME = "r", "ns", "r-gatefold"

# What is switched on besides the examples, each by itself and some together.
MATRIX = [
    [],
    ["fullnameOverride=moe"],
    ["model.source=pvc", "model.path=m"],
    ["model.source=pvc", "model.pvc.accessMode=ReadWriteOnce", "model.pvc.oneNode=true",
     "model.pvc.storageClassName=fast", "model.pvc.keep=false"],
    ["model.source=download", "model.download.headerSecret=h",
     "model.download.files[0].path=a/config.json", "model.download.files[0].url=https://x.example/c",
     "model.download.files[0].sha256=" + "0" * 64],
    ["model.source=image", "model.image.reference=models/m:1"],
    ["tls.enabled=true", "tls.existingSecret=certs"],
    ["tls.enabled=true", "tls.existingSecret=certs", "tls.mutual=false"],
    ["tls.enabled=true", "tls.existingSecret=certs", "tls.router.existingSecret=public",
     "tls.router.clientCertificates=true", "tests.tlsSecret=client"],
    ["apiKeys.existingSecret=keys", "tests.apiKeySecret=key"],
    ["router.autoscaling.hpa.enabled=true", "attention.autoscaling.hpa.enabled=true",
     "expert.autoscaling.hpa.enabled=true", "router.autoscaling.hpa.targetWaiting=4",
     "attention.autoscaling.hpa.targetWaiting=4", "expert.autoscaling.targetBusyLanes=50",
     "groups.big.lanes=2"],
    ["expert.autoscaling.keda.enabled=true", "attention.autoscaling.keda.enabled=true",
     "router.autoscaling.keda.enabled=true"],
    ["groups.a.replicas=2", "groups.b.replicas=1", "groups.b.backend=cuda", "groups.b.capacity=1GiB",
     "expert.weights=int8"],
    ["metrics.podMonitor.enabled=true", "metrics.prometheusRule.enabled=true",
     "metrics.dashboards.enabled=true", "metrics.podMonitor.labels.release=kps",
     "metrics.perExpert=true"],
    ["networkPolicy.enabled=false", "tests.enabled=false", "serviceAccount.create=false"],
    ["networkPolicy.scrapers=null", "networkPolicy.clients[0].podSelector.matchLabels.a=b"],
    ["expert.topologySpread.enabled=false", "expert.podDisruptionBudget.enabled=false",
     "expert.nodeSelector.disk=fast", "expert.priorityClassName=high", "expert.threads=4",
     "expert.extraArgs[0]=--spin-us=20", "expert.extraEnv[0].name=A", "expert.extraEnv[0].value=b",
     "expert.tolerations[0].operator=Exists", "image.pullSecrets[0]=s",
     "config.GATEFOLD_ISA=avx2", "expert.podLabels.l=v", "expert.podAnnotations.a=v"],
    ["router.service.type=LoadBalancer", "router.service.annotations.a=b", "commonLabels.team=x"],
    ["commonLabels.team=x", r"commonLabels.app\.kubernetes\.io/part-of=x", "router.podLabels.team=y",
     "metrics.podMonitor.enabled=true", "metrics.podMonitor.labels.team=z", "metrics.prometheusRule.enabled=true",
     "metrics.prometheusRule.labels.team=z", "metrics.dashboards.enabled=true", "metrics.dashboards.labels.team=z"],
    # What YAML takes for no text.
    ["nameOverride=on", "groups.yes.replicas=1", "groups.cpu.enabled=false", "image.pullSecrets[0]=on",
     "serviceAccount.create=false", "serviceAccount.name=on", "expert.priorityClassName=on",
     "expert.runtimeClassName=on", "model.source=existingClaim", "model.existingClaim.name=on",
     "apiKeys.existingSecret=on", "apiKeys.key=on", "tests.apiKeySecret=on", "tls.enabled=true",
     "tls.existingSecret=on", "tls.router.existingSecret=on", "tls.router.clientCertificates=true",
     "tests.tlsSecret=on", "tls.workerServerName=on"],
]


class Refused(Exception):
    """helm said no; the message is what it said."""


def run_helm(*args):
    done = subprocess.run([tools.require_helm(), *args], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def template(values=(), sets=(), extra=()):
    """Rendered text."""
    args = ["template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", KUBE_VERSION]
    for path in values:
        args += ["--values", str(path)]
    for text in sets:
        args += ["--set", text]
    return run_helm(*args, *extra)


def parse(text):
    tools.require_packages()
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # ten times as fast
        """Refuses a key that is there twice, as what comes after Helm may (kubectl, kustomize)."""

        def construct_mapping(self, node, deep=False):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"a key is there twice: {sorted(keys)}"
            return super().construct_mapping(node, deep)

    return [o for o in yaml.load_all(text, Loader) if o is not None]


@functools.cache
def objects(values=(), sets=()):
    return parse(template(values, sets))


def renderings():
    """(what, objects) of every example and of every line of the matrix."""
    for path in EXAMPLES:
        yield path.name, objects((path,))
    for sets in MATRIX:
        yield " ".join(sets) or "defaults", objects((), tuple(sets))


def of_kind(objs, *kinds):
    return [o for o in objs if o["kind"] in kinds]


def named(objs, kind, name):
    found = [o for o in of_kind(objs, kind) if o["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} objects are {kind} {name}"
    return found[0]


def workloads(objs):
    return of_kind(objs, "Deployment", "StatefulSet")


def pods(objs):
    """(name, labels, spec) of every pod template and pod."""
    for o in workloads(objs):
        template_ = o["spec"]["template"]
        yield o["metadata"]["name"], template_["metadata"]["labels"], template_["spec"]
    for o in of_kind(objs, "Pod"):
        yield o["metadata"]["name"], o["metadata"]["labels"], o["spec"]


def component(labels):
    return labels["app.kubernetes.io/component"]


def selects(selector, labels):
    return all(labels.get(k) == v for k, v in selector.items())
