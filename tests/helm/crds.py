"""Strict schemas of the custom resources that the chart makes, as far as it uses them.

Kubernetes' own schemas do not hold them, and their projects publish them in no package; fields are
written down here from the projects' API references, so a field that is not here is a mistake of
ours or a reason to look there again.
"""

STRING, INTEGER, BOOLEAN, OBJECT = ({"type": t} for t in ("string", "integer", "boolean", "object"))


def _object(required=(), **properties):
    return {"type": "object", "additionalProperties": False, "properties": properties,
            "required": list(required)}


def _list(items):
    return {"type": "array", "minItems": 1, "items": items}


_SELECTOR = _object(["matchLabels"], matchLabels={"type": "object", "additionalProperties": STRING})
_RELABELING = _object(["sourceLabels"], sourceLabels=_list(STRING), targetLabel=STRING,
                      action={"enum": ["keep"]}, regex=STRING)
_POD_MONITOR = _object(
    ["selector", "podMetricsEndpoints"], selector=_SELECTOR,
    podMetricsEndpoints=_list(_object(["port"], port=STRING, interval=STRING,
                                      relabelings=_list(_RELABELING))))
_RULE = _object(["alert", "expr"], alert=STRING, expr=STRING, labels=OBJECT, annotations=OBJECT,
                **{"for": STRING})
_PROMETHEUS_RULE = _object(["groups"], groups=_list(_object(["name", "rules"], name=STRING,
                                                            interval=STRING, rules=_list(_RULE))))
_POLICIES = _object(stabilizationWindowSeconds=INTEGER, selectPolicy=STRING, policies=_list(
    _object(["type", "value", "periodSeconds"], type={"enum": ["Pods", "Percent"]}, value=INTEGER,
            periodSeconds=INTEGER)))
_SCALED_OBJECT = _object(
    ["scaleTargetRef", "triggers"],
    scaleTargetRef=_object(["name"], apiVersion=STRING, kind=STRING, name=STRING),
    pollingInterval=INTEGER, minReplicaCount=INTEGER, maxReplicaCount=INTEGER,
    advanced=_object(horizontalPodAutoscalerConfig=_object(
        behavior=_object(scaleUp=_POLICIES, scaleDown=_POLICIES))),
    triggers=_list(_object(["type", "metadata"], type={"enum": ["prometheus", "cpu"]},
                           metricType={"enum": ["AverageValue", "Value", "Utilization"]},
                           # KEDA takes strings alone.
                           metadata={"type": "object", "additionalProperties": STRING})))
_CERTIFICATE = _object(
    ["secretName", "issuerRef", "dnsNames"], secretName=STRING,
    issuerRef=_object(["name"], name=STRING, kind=STRING, group=STRING),
    duration=STRING, renewBefore=STRING,
    privateKey=_object(algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]}, size=INTEGER,
                       rotationPolicy={"enum": ["Always", "Never"]}),
    usages=_list({"enum": ["digital signature", "server auth", "client auth"]}),
    dnsNames=_list(STRING))

SCHEMAS = {
    "monitoring.coreos.com/v1": {"PodMonitor": _POD_MONITOR, "PrometheusRule": _PROMETHEUS_RULE},
    "keda.sh/v1alpha1": {"ScaledObject": _SCALED_OBJECT},
    "cert-manager.io/v1": {"Certificate": _CERTIFICATE},
}


def validate(o):
    import jsonschema
    jsonschema.validate(o, _object(
        ["apiVersion", "kind", "metadata", "spec"], apiVersion=STRING, kind=STRING,
        metadata=_object(["name", "namespace", "labels"], name=STRING, namespace=STRING,
                         labels=OBJECT, annotations=OBJECT),
        spec=SCHEMAS[o["apiVersion"]][o["kind"]]))
