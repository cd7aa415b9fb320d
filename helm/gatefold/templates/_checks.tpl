{{/* Refuses what would deploy and then not work. What a schema can say is in values.schema.json. */}}
{{- define "gatefold.checks" -}}
{{- $root := . -}}
{{- $f := include "gatefold.fullname" . -}}
{{- if not (regexMatch "^[a-z][a-z0-9-]*$" $f) -}}
{{- fail (printf "the prefix of all names is %q, but Services have lower-case letters, digits and dashes in theirs, and a letter first; set fullnameOverride" $f) -}}
{{- end -}}
{{- $workloads := (include "gatefold.workloads" . | fromJson).items -}}
{{- $pods := 0 -}}
{{- $groups := 0 -}}
{{- $workers := dict "expert" 0 "attention" 0 -}}
{{- range $w := $workloads -}}
{{- $pods = add $pods $w.mostPods -}}
{{- if hasKey $workers $w.component -}}
{{- $_ := set $workers $w.component (add (index $workers $w.component) $w.mostPods) -}}
{{- end -}}
{{- $at := $w.component -}}
{{- if $w.group -}}
{{- $groups = add $groups 1 -}}
{{- $at = printf "groups.%s" $w.group -}}
{{- end -}}
{{- if gt (len $w.name) 52 -}}
{{- fail (printf "%s: the name %q has %d characters, may have 52; shorten fullnameOverride or the group's name" $at $w.name (len $w.name)) -}}
{{- end -}}
{{- if le (int $w.grace) (int $w.least) -}}
{{- fail (printf "%s.terminationGracePeriodSeconds is %d, must be above preStopSeconds + drainSeconds = %d; 0 takes 10 more than that" $at (int $w.grace) (int $w.least)) -}}
{{- end -}}
{{- if and $w.hpa $w.keda -}}
{{- fail (printf "%s.autoscaling: hpa and keda are both enabled, and would fight; choose one" $at) -}}
{{- end -}}
{{- if and $w.autoscaled (gt (int $w.values.autoscaling.minReplicas) (int $w.values.autoscaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling.minReplicas is %d, above maxReplicas, which is %d" $at (int $w.values.autoscaling.minReplicas) (int $w.values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and $w.autoscaled (eq $w.component "router") -}}
{{- $by := index $w.values.autoscaling (ternary "hpa" "keda" $w.hpa) -}}
{{- if eq 0 (add (int $by.targetCPU) (int $by.targetWaiting) | int) -}}
{{- fail "router.autoscaling: targetCPU and targetWaiting are both 0, so there is nothing to scale by" -}}
{{- end -}}
{{- end -}}
{{- with $w.values.rollingUpdate -}}
{{- if not (regexMatch "[1-9]|nil" (printf "%v %v" .maxUnavailable .maxSurge)) -}}
{{- fail (printf "%s.rollingUpdate: maxUnavailable and maxSurge are both 0, so an upgrade could replace no pod" $at) -}}
{{- end -}}
{{- end -}}
{{- include "gatefold.checks.memory" (dict "at" $at "w" $w) -}}
{{- if and $w.group (eq (toString $w.values.capacity) "auto") (include "gatefold.onDevice" $w) -}}
{{- fail (printf "%s.capacity is auto, which looks at the container's memory; with backend cuda, or auto and a device in the limits, say how much of the device's memory experts may take, as 70GiB" $at) -}}
{{- end -}}
{{- end -}}
{{- if eq $groups 0 -}}
{{- fail "groups: no group is enabled, so nobody would hold experts" -}}
{{- end -}}
{{- range $component, $most := $workers -}}
{{- if gt (int $most) 255 -}}
{{- fail (printf "there may be up to %d pods of %s, and a router knows 255: fewer and larger ones, or another release" (int $most) $component) -}}
{{- end -}}
{{- end -}}
{{- include "gatefold.checks.numerics" . -}}
{{- include "gatefold.checks.ports" . -}}
{{- include "gatefold.checks.model" (dict "root" . "pods" $pods) -}}
{{- include "gatefold.checks.tls" . -}}
{{- end -}}

{{/* "true" if it computes where its container's memory is not what counts: on a GPU, which is there if
     a limit names it (nvidia.com/gpu). Takes a workload. */}}
{{- define "gatefold.onDevice" -}}
{{- $devices := default (dict) .values.resources.limits | keys | join " " | contains "/" -}}
{{- if or (eq .values.backend "cuda") (and (eq .values.backend "auto") $devices) -}}true{{- end -}}
{{- end -}}

{{- define "gatefold.checks.memory" -}}
{{- $is := get (dict "attention" "kvMemory" "expert" "capacity") .w.component -}}
{{- $limit := dig "limits" "memory" "" .w.values.resources -}}
{{- if and $is $limit -}}
{{- $asked := get .w.values $is -}}
{{- if and (ne $asked "auto") (not (include "gatefold.onDevice" .w)) -}}
{{- if ge (trimSuffix "B" $asked | include "gatefold.bytes" | int64) (include "gatefold.bytes" $limit | int64) -}}
{{- fail (printf "%s.%s is %s, which is not below resources.limits.memory, %v: the pod would be killed once it is used" .at $is $asked $limit) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Each router would use the class of the shard that it found first, and refuse the others. */}}
{{- define "gatefold.checks.numerics" -}}
{{- if not .Values.router.allowMixedNumerics -}}
{{- $first := dict -}}
{{- range $w := (include "gatefold.workloads" . | fromJson).items -}}
{{- range $what := ternary (list "weights" "backend") (list) (not (empty $w.group)) -}}
{{- $is := index $w.values $what -}}
{{- if ne $is "auto" -}}
{{- if not (hasKey $first $what) -}}
{{- $_ := set $first $what (dict "group" $w.group "is" $is) -}}
{{- else if ne $is (index $first $what).is -}}
{{- fail (printf "groups.%s.%s is %s and groups.%s.%s is %s, which compute different bits: have them alike, or set router.allowMixedNumerics" $w.group $what $is (index $first $what).group $what (index $first $what).is) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A kubelet has no certificate: probes need a port that is not the service's. */}}
{{- define "gatefold.checks.ports" -}}
{{- $ports := .Values.ports -}}
{{- range $service := list "router" "expert" "attention" -}}
{{- if eq (int $ports.health) (int (index $ports $service)) -}}
{{- fail (printf "ports.health is ports.%s (%d): probes on a TLS port would fail, and on any service port they would wait for weights" $service (int $ports.health)) -}}
{{- end -}}
{{- if eq (int $ports.metrics) (int (index $ports $service)) -}}
{{- fail (printf "ports.metrics is ports.%s (%d): each needs a port of its own" $service (int $ports.metrics)) -}}
{{- end -}}
{{- end -}}
{{- range $other := list "router" "expert" "attention" "metrics" "health" -}}
{{- if eq (int $ports.admin) (int (index $ports $other)) -}}
{{- fail (printf "ports.admin is ports.%s (%d): each needs a port of its own" $other (int $ports.admin)) -}}
{{- end -}}
{{- end -}}
{{- if eq (int $ports.health) (int $ports.metrics) -}}
{{- fail (printf "ports.health is ports.metrics (%d): each needs a port of its own" (int $ports.health)) -}}
{{- end -}}
{{- end -}}

{{- define "gatefold.checks.model" -}}
{{- $model := .root.Values.model -}}
{{- if or (eq $model.source "pvc") (eq $model.source "existingClaim") -}}
{{- $claim := index $model $model.source -}}
{{- if and (eq $claim.accessMode "ReadWriteOnce") (gt (int .pods) 1) (not $claim.oneNode) -}}
{{- fail (printf "model.%s.accessMode is ReadWriteOnce, and up to %d pods mount it: pods of a second node would wait forever. Use ReadOnlyMany or ReadWriteMany, or set model.%s.oneNode=true where there is one node" $model.source (int .pods) $model.source) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $model.source "existingClaim") (not $model.existingClaim.name) -}}
{{- fail "model.existingClaim.name is missing: model.source is existingClaim" -}}
{{- end -}}
{{- if and (eq $model.source "image") (not $model.image.reference) -}}
{{- fail "model.image.reference is missing: model.source is image" -}}
{{- end -}}
{{- if and (eq $model.source "download") (not $model.download.files) -}}
{{- fail "model.download.files is empty: model.source is download" -}}
{{- end -}}
{{- if and (eq $model.source "download") .root.Values.networkPolicy.enabled -}}
{{- $open := list -}}
{{- range .root.Values.networkPolicy.downloadPorts -}}{{- $open = append $open (int .) -}}{{- end -}}
{{- range $model.download.files -}}
{{- $url := urlParse .url -}}
{{- $port := default (ternary "443" "80" (eq $url.scheme "https")) (regexFind ":[0-9]+$" $url.host | trimPrefix ":") | int -}}
{{- if not (has $port $open) -}}
{{- fail (printf "model.download.files: %s is at port %d, which is not among networkPolicy.downloadPorts" .url $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $model.source "embedded") $model.path -}}
{{- fail "model.path is for volumes: model.source is embedded" -}}
{{- end -}}
{{- end -}}

{{- define "gatefold.checks.tls" -}}
{{- $tls := .Values.tls -}}
{{- if $tls.enabled -}}
{{- if and $tls.existingSecret $tls.certManager.enabled -}}
{{- fail "tls: existingSecret and certManager.enabled are both set; choose one" -}}
{{- end -}}
{{- if and (not $tls.existingSecret) (not $tls.certManager.enabled) -}}
{{- fail "tls.enabled is true: set tls.existingSecret or tls.certManager.enabled" -}}
{{- end -}}
{{- if and $tls.certManager.enabled (not $tls.certManager.issuerRef.name) -}}
{{- fail "tls.certManager.issuerRef.name is missing" -}}
{{- end -}}
{{- if and $tls.router.existingSecret $tls.certManager.enabled -}}
{{- fail "tls: router.existingSecret and certManager.enabled are both set; choose one" -}}
{{- end -}}
{{- if and $tls.router.clientCertificates .Values.tests.enabled (not .Values.tests.tlsSecret) -}}
{{- fail "tls.router.clientCertificates is true: helm test needs a certificate, in tests.tlsSecret; or set tests.enabled=false" -}}
{{- end -}}
{{- else if or $tls.existingSecret $tls.router.existingSecret $tls.certManager.enabled -}}
{{- fail "tls.enabled is false, but tls.existingSecret, tls.router.existingSecret or tls.certManager.enabled is set" -}}
{{- end -}}
{{- end -}}
