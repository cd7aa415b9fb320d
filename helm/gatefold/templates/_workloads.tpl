{{/*
All workloads as {"items": [{component, group, name, port, autoscaled, grace, values}]}, so that what
every workload has (a ServiceAccount, a PDB, a NetworkPolicy, ...) is one loop. Ports and periods are
checked in _checks.tpl.
*/}}
{{- define "gatefold.workloads" -}}
{{- $root := . -}}
{{- $items := list -}}
{{- range $component := list "router" "planner" "attention" -}}
{{- $values := index $root.Values $component -}}
{{- $items = append $items (include "gatefold.workload" (dict "root" $root "component" $component "group" "" "values" $values) | fromJson) -}}
{{- end -}}
{{- range $group := keys .Values.groups | sortAlpha -}}
{{- $values := include "gatefold.merge" (dict "under" $root.Values.expert "over" (default (dict) (index $root.Values.groups $group))) | fromJson -}}
{{- if $values.enabled -}}
{{- $items = append $items (include "gatefold.workload" (dict "root" $root "component" "expert" "group" $group "values" $values) | fromJson) -}}
{{- end -}}
{{- end -}}
{{- dict "items" $items | toJson -}}
{{- end -}}

{{- define "gatefold.workload" -}}
{{- $scaling := default (dict) .values.autoscaling -}}
{{- $hpa := dig "hpa" "enabled" false $scaling -}}
{{- $keda := dig "keda" "enabled" false $scaling -}}
{{- $drain := default 0 .values.drainSeconds | int -}}
{{- $least := add (int .values.preStopSeconds) $drain -}}
{{- $grace := int .values.terminationGracePeriodSeconds -}}
{{- if eq $grace 0 -}}{{- $grace = add $least 10 -}}{{- end -}}
{{- $name := printf "%s-%s" (include "gatefold.fullname" .root) .component -}}
{{- with .group -}}{{- $name = printf "%s-%s" $name . -}}{{- end -}}
{{- $most := default 1 .values.replicas | int -}}
{{- if or $hpa $keda -}}{{- $most = int $scaling.maxReplicas -}}{{- end -}}
{{- dict "component" .component "group" .group "name" $name "values" .values "hpa" $hpa "keda" $keda
    "autoscaled" (or $hpa $keda) "grace" $grace "least" $least "mostPods" $most
    "port" (index .root.Values.ports .component) | toJson -}}
{{- end -}}

{{/* `over` on top of `under`, maps merged and everything else replaced, by false and 0 as well,
     which mergeOverwrite would take for nothing. */}}
{{- define "gatefold.merge" -}}
{{- $merged := deepCopy .under -}}
{{- range $key, $value := .over -}}
{{- if and (kindIs "map" $value) (kindIs "map" (index $merged $key)) $value -}}
{{- $_ := set $merged $key (include "gatefold.merge" (dict "under" (index $merged $key) "over" $value) | fromJson) -}}
{{- else -}}
{{- $_ := set $merged $key $value -}}
{{- end -}}
{{- end -}}
{{- $merged | toJson -}}
{{- end -}}

{{/* Bytes of a Kubernetes quantity such as 4Gi or 500M. A bare number comes as a float, which would
     be written as 4.29e+09. */}}
{{- define "gatefold.bytes" -}}
{{- $text := ternary (toString .) (int64 . | toString) (kindIs "string" .) -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- $unit := regexReplaceAll "^[0-9.]+" $text "" -}}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- if not (hasKey $factors $unit) -}}
{{- fail (printf "memory is %q, must be a number with Ki, Mi, Gi, Ti, k, M, G, T or nothing" $text) -}}
{{- end -}}
{{- mulf $number (index $factors $unit) | int64 -}}
{{- end -}}

{{/* --capacity of an expert-service, in bytes or as the user wrote it. Takes a workload. */}}
{{- define "gatefold.capacity" -}}
{{- $capacity := toString .values.capacity -}}
{{- $memory := default (dig "requests" "memory" "" .values.resources) (dig "limits" "memory" "" .values.resources) -}}
{{- if ne $capacity "auto" -}}
{{ $capacity }}
{{- else if $memory -}}
{{ div (mul (include "gatefold.bytes" $memory | int64) 8) 10 }}
{{- else -}}
0
{{- end -}}
{{- end -}}
