{{/*
Two sets of certificates: one for hops between services (a CA of the cluster's own), one for the
router's public port. Attention and experts present the first to routers; routers and the planner
present it to them, and experts to experts; a router presents the second to clients.
*/}}

{{/* Name of the Secret. Takes {root, of}: router (the public port), router-client, planner,
     attention or expert. */}}
{{- define "gatefold.tlsSecret" -}}
{{- $tls := .root.Values.tls -}}
{{- if $tls.certManager.enabled -}}
{{ include "gatefold.fullname" .root }}-{{ .of }}-tls
{{- else if and (eq .of "router") $tls.router.existingSecret -}}
{{ $tls.router.existingSecret }}
{{- else -}}
{{ $tls.existingSecret }}
{{- end -}}
{{- end -}}

{{- define "gatefold.workerServerName" -}}
{{- default (printf "%s-worker" (include "gatefold.fullname" .)) .Values.tls.workerServerName -}}
{{- end -}}

{{/* What a workload presents to whom. Takes {root, w}. */}}
{{- define "gatefold.tlsFlags" -}}
{{- $tls := .root.Values.tls -}}
{{- $calls := or (eq .w.component "router") (eq .w.component "planner") -}}
{{- if $tls.enabled }}
{{- if ne .w.component "planner" }}
- --tls-cert-file=/etc/gatefold/tls/tls.crt
- --tls-key-file=/etc/gatefold/tls/tls.key
{{- end }}
{{- if or (and (eq .w.component "router") $tls.router.clientCertificates) (and (not $calls) $tls.mutual) }}
- --tls-ca-file=/etc/gatefold/tls/ca.crt
{{- end }}
{{- if and (eq .w.component "expert") $tls.mutual }}
- --tls-server-name={{ include "gatefold.workerServerName" .root }}
{{- end }}
{{- if $calls }}
- --worker-tls-ca-file=/etc/gatefold/worker-tls/ca.crt
{{- if $tls.mutual }}
- --worker-tls-cert-file=/etc/gatefold/worker-tls/tls.crt
- --worker-tls-key-file=/etc/gatefold/worker-tls/tls.key
{{- end }}
- --worker-tls-server-name={{ include "gatefold.workerServerName" .root }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "gatefold.tlsMounts" -}}
{{- if .root.Values.tls.enabled }}
{{- if ne .w.component "planner" }}
- {name: tls, mountPath: /etc/gatefold/tls, readOnly: true}
{{- end }}
{{- if or (eq .w.component "router") (eq .w.component "planner") }}
- {name: worker-tls, mountPath: /etc/gatefold/worker-tls, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{- define "gatefold.tlsVolumes" -}}
{{- if .root.Values.tls.enabled }}
{{- if ne .w.component "planner" }}
- name: tls
  secret: {secretName: {{ include "gatefold.tlsSecret" (dict "root" .root "of" .w.component) | quote }}, defaultMode: 0440}
{{- end }}
{{- if or (eq .w.component "router") (eq .w.component "planner") }}
- name: worker-tls
  secret: {secretName: {{ include "gatefold.tlsSecret" (dict "root" .root "of" (ternary "router-client" "planner" (eq .w.component "router"))) | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end -}}
