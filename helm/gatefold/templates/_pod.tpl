{{/* The pod template of a workload. Takes {root, w, args}; `args` are the flags that only it has. */}}
{{- define "gatefold.pod" -}}
{{- $root := .root -}}
{{- $w := .w -}}
{{- $v := .w.values -}}
metadata:
  labels:
    {{- /* Without version and chart, which would restart all pods when they change. */}}
    {{- $selected := include "gatefold.workload.selector" . | fromYaml }}
    {{- mergeOverwrite (dict) (default (dict) $root.Values.commonLabels) (default (dict) $v.podLabels) $selected | toYaml | nindent 4 }}
  annotations:
    checksum/config: {{ include "gatefold.config" $root | sha256sum }}
    {{- with $v.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "gatefold.serviceAccount" . | quote }}
  automountServiceAccountToken: false
  # Variables of Services would look like flags: GATEFOLD_ROUTER_PORT.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ int $w.grace }}
  securityContext:
    {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  {{- if eq $root.Values.model.source "download" }}
  initContainers:
    {{- include "gatefold.download" . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ $w.component }}
      image: {{ include "gatefold.image" (dict "root" $root "image" $v.image) | quote }}
      imagePullPolicy: {{ default $root.Values.image.pullPolicy $v.image.pullPolicy }}
      command: [{{ if eq $w.component "planner" }}router-service{{ else }}{{ $w.component }}-service{{ end }}]
      args:
        {{- /* A planner serves no port; this is where its metrics and health go: everywhere. */}}
        - --listen=0.0.0.0:{{ int (default $root.Values.ports.router $w.port) }}
        {{- .args | nindent 8 }}
        {{- with include "gatefold.tlsFlags" . | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- if gt (int $v.threads) 0 }}
        - --threads={{ int $v.threads }}
        {{- end }}
        {{- range $v.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      envFrom:
        - configMapRef: {name: {{ include "gatefold.fullname" $root }}-config}
      env:
        {{- include "gatefold.env" . | nindent 8 }}
      ports:
        {{- if $w.port }}
        - {name: grpc, containerPort: {{ int $w.port }}, protocol: TCP}
        {{- end }}
        - {name: metrics, containerPort: {{ int $root.Values.ports.metrics }}, protocol: TCP}
        - {name: health, containerPort: {{ int $root.Values.ports.health }}, protocol: TCP}
      {{- range $probe := list "startup" "readiness" "liveness" }}
      {{ $probe }}Probe:
        grpc: {port: {{ int $root.Values.ports.health }}, service: {{ $probe }}}
        {{- toYaml (index $root.Values.probes $probe) | nindent 8 }}
      {{- end }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ int $v.preStopSeconds }}}
      securityContext:
        {{- toYaml $root.Values.containerSecurityContext | nindent 8 }}
      resources:
        {{- toYaml $v.resources | nindent 8 }}
      {{- with include "gatefold.mounts" . | trim }}
      volumeMounts:
        {{- . | nindent 8 }}
      {{- end }}
  {{- with include "gatefold.volumes" . | trim }}
  volumes:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with include "gatefold.scheduling" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Of a Deployment: what Kubernetes grants by default, and as long again as weights may load. Else
     a router that waits for its experts has failed after ten minutes, says kubectl rollout status. */}}
{{- define "gatefold.progressDeadline" -}}
{{- $startup := .Values.probes.startup -}}
progressDeadlineSeconds: {{ mul (int $startup.periodSeconds) (int $startup.failureThreshold) | add 600 }}
{{- end -}}

{{/* Flags that the pod learns where it runs. The zone is there from Kubernetes 1.35 on (the kubelet's
     node labels appear on pods), and empty before. */}}
{{- define "gatefold.env" -}}
{{- $v := .w.values -}}
- name: GATEFOLD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- if or (eq .w.component "expert") (eq .w.component "attention") }}
- name: GATEFOLD_NODE
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: GATEFOLD_ZONE
  valueFrom: {fieldRef: {fieldPath: "metadata.labels['topology.kubernetes.io/zone']"}}
{{- end }}
{{- $of := "" -}}
{{- if dig "limits" "cpu" "" $v.resources -}}{{- $of = "limits.cpu" -}}
{{- else if dig "requests" "cpu" "" $v.resources -}}{{- $of = "requests.cpu" -}}
{{- end }}
{{- if and $of (eq (int $v.threads) 0) }}
- name: GATEFOLD_THREADS
  valueFrom: {resourceFieldRef: {resource: {{ $of }}, divisor: "1"}}
{{- end }}
{{- with $v.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "gatefold.scheduling" -}}
{{- $v := .w.values -}}
{{- with $v.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $v.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- if $v.topologySpread.enabled }}
topologySpreadConstraints:
  {{- if $v.topologySpread.constraints }}
  {{- toYaml $v.topologySpread.constraints | nindent 2 }}
  {{- else }}
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "gatefold.workload.selector" $ | nindent 8 }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end -}}
