{{/* Prefix of all names: short enough that "-expert-<group>-<hashes>" still fits 63 characters. */}}
{{- define "gatefold.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 36 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selectors select by; never changes during a release's life. Takes {root, component, group};
     the last two may be missing. */}}
{{- define "gatefold.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .group }}
gatefold.io/group: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Labels of an object. Takes {root, component, group, more}. The later beats the earlier: the chart's,
     commonLabels, `more`, what selectors select by. */}}
{{- define "gatefold.labels" -}}
{{- $chart := dict "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/part-of" "gatefold"
    "app.kubernetes.io/managed-by" .root.Release.Service
    "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63) -}}
{{- $selected := include "gatefold.selector" . | fromYaml -}}
{{- mergeOverwrite $chart (default (dict) .root.Values.commonLabels) (default (dict) .more) $selected | toYaml -}}
{{- end -}}

{{/* The same for a workload: experts have their group besides. Takes {root, w}. */}}
{{- define "gatefold.workload.selector" -}}
{{ include "gatefold.selector" (dict "root" .root "component" .w.component "group" .w.group) }}
{{- end -}}

{{/* Takes {root, w, more}. */}}
{{- define "gatefold.workload.labels" -}}
{{ include "gatefold.labels" (dict "root" .root "component" .w.component "group" .w.group "more" .more) }}
{{- end -}}

{{/* Takes {root, name}. */}}
{{- define "gatefold.meta" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
{{- end -}}

{{/* Takes {root, image}; the digest of all images is not that of a workload's own tag. */}}
{{- define "gatefold.image" -}}
{{- $under := ternary (omit .root.Values.image "digest") .root.Values.image (not (empty .image.tag)) -}}
{{- $image := mergeOverwrite (deepCopy $under) (deepCopy .image) -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $image.repository $image.digest }}
{{- else -}}
{{ printf "%s:%s" $image.repository (default .root.Chart.AppVersion $image.tag) }}
{{- end -}}
{{- end -}}

{{- define "gatefold.serviceAccount" -}}
{{- if .root.Values.serviceAccount.create -}}
{{ .w.name }}
{{- else -}}
{{ default "default" .root.Values.serviceAccount.name }}
{{- end -}}
{{- end -}}
