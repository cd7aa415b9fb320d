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

{{/* What selectors select by; never changes during a release's life. Takes {root, component}. */}}
{{- define "gatefold.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. Takes {root, component}; component may be empty. */}}
{{- define "gatefold.labels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: gatefold
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The same for a workload: experts have their group besides. Takes {root, w}. */}}
{{- define "gatefold.workload.selector" -}}
{{ include "gatefold.selector" (dict "root" .root "component" .w.component) }}
{{- with .w.group }}
gatefold.io/group: {{ . }}
{{- end }}
{{- end -}}

{{- define "gatefold.workload.labels" -}}
{{ include "gatefold.labels" (dict "root" .root "component" .w.component) }}
{{- with .w.group }}
gatefold.io/group: {{ . }}
{{- end }}
{{- end -}}

{{/* Takes {root, name}. */}}
{{- define "gatefold.meta" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
{{- end -}}

{{- define "gatefold.image" -}}
{{- $image := mergeOverwrite (deepCopy .root.Values.image) (deepCopy .image) -}}
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
