{{/* Folder of the model as the services see it. */}}
{{- define "gatefold.modelDir" -}}
{{- if eq .Values.model.source "embedded" -}}
/opt/gatefold/models/gatefold-tiny-moe
{{- else -}}
{{- printf "/models/%s" .Values.model.path | trimSuffix "/" -}}
{{- end -}}
{{- end -}}

{{- define "gatefold.mounts" -}}
{{- $values := .root.Values -}}
{{- if ne $values.model.source "embedded" }}
- {name: model, mountPath: /models, readOnly: true}
{{- end }}
{{- include "gatefold.tlsMounts" . }}
{{- if and (eq .w.component "router") $values.apiKeys.existingSecret }}
- {name: api-keys, mountPath: /etc/gatefold/keys, readOnly: true}
{{- end }}
{{- end -}}

{{/* Secrets are for the pod's group alone (0440 with fsGroup): services refuse keys that the world
     can read. They are mounted as folders, which Kubernetes renews; subPath mounts it does not. */}}
{{- define "gatefold.volumes" -}}
{{- $values := .root.Values -}}
{{- $source := $values.model.source -}}
{{- if eq $source "pvc" }}
- name: model
  persistentVolumeClaim: {claimName: {{ include "gatefold.fullname" .root }}-model}
{{- else if eq $source "existingClaim" }}
- name: model
  persistentVolumeClaim: {claimName: {{ $values.model.existingClaim.name | quote }}}
{{- else if eq $source "image" }}
- name: model
  image:
    reference: {{ $values.model.image.reference | quote }}
    pullPolicy: {{ $values.model.image.pullPolicy }}
{{- else if eq $source "download" }}
- name: model
  emptyDir: {sizeLimit: {{ $values.model.download.sizeLimit | quote }}}
{{- with $values.model.download.headerSecret }}
- name: download-header
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- include "gatefold.tlsVolumes" . }}
{{- if and (eq .w.component "router") $values.apiKeys.existingSecret }}
- name: api-keys
  secret:
    secretName: {{ $values.apiKeys.existingSecret | quote }}
    defaultMode: 0440
    items: [{key: {{ $values.apiKeys.key | quote }}, path: api-keys}]
{{- end }}
{{- end -}}

{{/* Fetches the model's files and believes none whose digest differs. */}}
{{- define "gatefold.download" -}}
{{- $download := .root.Values.model.download -}}
- name: download
  image: {{ include "gatefold.image" (dict "root" .root "image" .w.values.image) | quote }}
  imagePullPolicy: {{ default .root.Values.image.pullPolicy .w.values.image.pullPolicy }}
  command: [/bin/sh, -euc]
  args:
    - |
      fetch() {
        target="/models/$1"
        if [ -f "$target" ] && echo "$3  $target" | sha256sum --check --status; then return; fi
        mkdir -p "$(dirname "$target")"
        echo "fetching $1"
        curl --fail --silent --show-error --location --retry 5 --retry-all-errors \
          {{ if $download.headerSecret }}--header @/etc/gatefold/download/header {{ end }}--output "$target.part" "$2"
        if ! echo "$3  $target.part" | sha256sum --check --status; then
          echo "$1 has sha256 $(sha256sum <"$target.part" | cut -d ' ' -f 1), must be $3" >&2
          exit 1
        fi
        mv "$target.part" "$target"
      }
      # Behind the shell, which as a container's first process ends at SIGTERM only if it says so, and
      # says nothing while it waits for a program in front.
      trap 'exit 143' TERM
      {
        {{- range $download.files }}
        fetch '{{ .path }}' '{{ .url }}' '{{ .sha256 }}'
        {{- end }}
      } &
      wait $!
  {{- with .w.values.extraEnv }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .root.Values.containerSecurityContext | nindent 4 }}
  resources:
    {{- toYaml $download.resources | nindent 4 }}
  volumeMounts:
    - {name: model, mountPath: /models}
    {{- if $download.headerSecret }}
    - {name: download-header, mountPath: /etc/gatefold/download, readOnly: true}
    {{- end }}
{{- end -}}
