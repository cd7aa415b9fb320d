"""Values that would deploy and not work are refused, with a message that says what to do."""

import unittest

import chart

GPU = "groups.gpu.backend=cuda"


def download(*urls):
    return ["model.source=download", *(f"model.download.files[{i}].{part}" for i, url in enumerate(urls)
                                       for part in ("path=x", f"url={url}", "sha256=" + "0" * 64))]


REFUSALS = [
    # Names and types: the schema. Its wording is Helm's and changes with its version.
    (["rooter.replicas=1"], "rooter"),
    (["router.replica=1"], "replica"),
    (["groups.cpu.replics=1"], "replics"),
    (["groups.CPU.replicas=1"], "CPU"),
    (["router.replicas=-1"], "replicas"),
    (["router.autoscaling.minReplicas=0"], "minReplicas"),
    (["groups.cpu.autoscaling.minReplicas=0"], "minReplicas"),
    (["model.source=nfs"], "source"),
    (["attention.kvMemory=1GB"], "kvMemory"),
    (["router.wireDtype=int8"], "wireDtype"),
    (["router.maxWaiting=0"], "maxWaiting"),
    (["router.verify=101%"], "verify"),
    (["router.wait=hybrid:0us"], "wait"),
    (["expert.wait=hybrid:1000000us"], "wait"),
    (["config.FOO=x"], "FOO"),
    (["groups.cpu.resources.claims[0].name=gpu"], "claims"),
    (["ports.router=80"], "router"),
    (["model.source=download", "model.download.files[0].path=../x", "model.download.files[0].url=https://x.example/y",
      "model.download.files[0].sha256=" + "0" * 64], "path"),
    (["model.source=download", "model.download.files[0].path=x", "model.download.files[0].url=https://x.example/y"],
     "sha256"),
    (["model.source=download", "model.download.files[0].path=x", "model.download.files[0].url=https://x/'; rm'",
      "model.download.files[0].sha256=" + "0" * 64], "url"),
    # What depends on two values: the templates.
    (download("https://x.example/y", "http://x.example/y"), "http://x.example/y is at port 80"),
    (download("http://[fd00::5]:9000/y"), "is at port 9000, which is not among networkPolicy.downloadPorts"),
    (["model.source=pvc", "model.pvc.accessMode=ReadWriteOnce"], "ReadWriteOnce, and up to 7 pods mount it"),
    (["model.source=existingClaim", "model.existingClaim.name=m",
      "model.existingClaim.accessMode=ReadWriteOnce"], "model.existingClaim.oneNode=true"),
    (["model.source=existingClaim"], "model.existingClaim.name is missing"),
    (["model.source=image"], "model.image.reference is missing"),
    (["model.source=download"], "model.download.files is empty"),
    (["model.path=x"], "model.path is for volumes"),
    (["groups.b.weights=int8"],
     "groups.cpu.weights is checkpoint and groups.b.weights is int8, which compute different bits"),
    (["groups.a.backend=cpu", GPU, "groups.gpu.capacity=1GiB"],
     "groups.gpu.backend is cuda and groups.a.backend is cpu, which compute different bits"),
    (["router.terminationGracePeriodSeconds=65"],
     "router.terminationGracePeriodSeconds is 65, must be above preStopSeconds + drainSeconds = 65"),
    (["groups.cpu.drainSeconds=600", "groups.cpu.terminationGracePeriodSeconds=300"],
     "groups.cpu.terminationGracePeriodSeconds is 300, must be above preStopSeconds + drainSeconds = 605"),
    (["expert.autoscaling.hpa.enabled=true", "groups.cpu.autoscaling.keda.enabled=true"],
     "groups.cpu.autoscaling: hpa and keda are both enabled"),
    (["router.autoscaling.keda.enabled=true", "router.autoscaling.maxReplicas=1"],
     "router.autoscaling.minReplicas is 2, above maxReplicas, which is 1"),
    (["groups.cpu.rollingUpdate.maxSurge=0"],
     "groups.cpu.rollingUpdate: maxUnavailable and maxSurge are both 0"),
    (["expert.rollingUpdate.maxUnavailable=0%", "expert.rollingUpdate.maxSurge=0%"], "are both 0"),
    (["router.autoscaling.hpa.enabled=true", "router.autoscaling.hpa.targetCPU=0"], "nothing to scale by"),
    (["router.autoscaling.keda.enabled=true", "router.autoscaling.keda.targetCPU=0",
      "router.autoscaling.keda.targetWaiting=0"], "nothing to scale by"),
    (["ports.health=7070"], "probes on a TLS port would fail"),
    (["ports.metrics=7071"], "ports.metrics is ports.expert"),
    (["ports.admin=9090"], "ports.admin is ports.metrics"),
    (["ports.metrics=9091"], "ports.health is ports.metrics"),
    (["tls.enabled=true"], "set tls.existingSecret or tls.certManager.enabled"),
    (["tls.enabled=true", "tls.existingSecret=a", "tls.certManager.enabled=true"], "choose one"),
    (["tls.enabled=true", "tls.certManager.enabled=true"], "issuerRef.name is missing"),
    (["tls.existingSecret=a"], "tls.enabled is false"),
    (["tls.enabled=true", "tls.router.existingSecret=p", "tls.certManager.enabled=true",
      "tls.certManager.issuerRef.name=i"], "choose one"),
    (["tls.enabled=true", "tls.existingSecret=a", "tls.router.clientCertificates=true"], "tests.tlsSecret"),
    (["groups.cpu.enabled=false"], "no group is enabled"),
    ([GPU], "groups.gpu.capacity is auto"),
    ([r"groups.gpu.resources.limits.nvidia\.com/mig-1g\.10gb=1"], "groups.gpu.capacity is auto"),
    (["attention.kvMemory=32GiB"], "attention.kvMemory is 32GiB, which is not below resources.limits.memory, 3Gi"),
    (["groups.cpu.capacity=4096MiB"], "groups.cpu.capacity is 4096MiB, which is not below resources.limits.memory, 4Gi"),
    (["expert.weights=int2"], "weights"),
    (["groups.cpu.replicas=200", "groups.big.replicas=56"], "up to 256 pods of expert, and a router knows 255"),
    (["attention.autoscaling.keda.enabled=true", "attention.autoscaling.maxReplicas=256"],
     "up to 256 pods of attention, and a router knows 255"),
    (["fullnameOverride=" + "x" * 50], "may have 52"),
    (["fullnameOverride=8x7b"], 'names is "8x7b", but Services'),
    (["nameOverride=v0.1"], 'names is "r-v0.1", but Services'),
]


class ChartRefusalsTest(unittest.TestCase):
    def test_refuses_what_would_not_work(self):
        for sets, message in REFUSALS:
            with self.subTest(sets=sets):
                with self.assertRaises(chart.Refused) as caught:
                    chart.template(sets=sets)
                self.assertIn(message, str(caught.exception))

    def test_takes_the_neighbours_of_what_it_refuses(self):
        for sets in (["router.terminationGracePeriodSeconds=66"],
                     ["model.source=pvc", "model.pvc.accessMode=ReadOnlyMany"],
                     ["groups.cpu.enabled=false", "groups.big.replicas=1"],
                     ["router.autoscaling.keda.enabled=true", "router.autoscaling.maxReplicas=2"],
                     ["router.verify=100%", "router.wait=hybrid:1us", "expert.wait=hybrid:999999us"],
                     [GPU, "groups.gpu.capacity=70GiB"],
                     ["groups.cpu.replicas=200", "groups.big.replicas=55"],
                     ["attention.kvMemory=32GiB", r"attention.resources.limits.nvidia\.com/gpu=1"],
                     ["attention.kvMemory=32GiB", "attention.resources.limits=null"],
                     ["groups.cpu.capacity=4095MiB"],
                     [r"groups.cpu.resources.limits.rdma/hca=1", "groups.cpu.backend=cpu"],
                     ["expert.resources.limits=null"],
                     [*download("https://[fd00::5]/y", "http://x.example:9000/y"),
                      "networkPolicy.downloadPorts[0]=9000", "networkPolicy.downloadPorts[1]=443"],
                     [*download("http://x.example/y"), "networkPolicy.enabled=false"],
                     ["global.anything.at.all=1", "enabled=true"]):
            with self.subTest(sets=sets):
                chart.template(sets=sets)

    def test_refuses_an_old_kubernetes(self):
        with self.assertRaises(chart.Refused) as caught:
            chart.template(extra=["--kube-version", "1.29.0"])
        self.assertIn("1.30", str(caught.exception))
