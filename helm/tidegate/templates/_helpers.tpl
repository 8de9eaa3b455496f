{{- define "tidegate.labels" -}}
app.kubernetes.io/name: tidegate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* By digest where one is given, else by tag. */ -}}
{{- define "tidegate.image" -}}
{{- $image := printf "%s/tidegate-%s" .root.Values.image.registry .name -}}
{{- with get .root.Values.image.digests .name -}}
{{ $image }}@{{ . }}
{{- else -}}
{{ $image }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* Security context of every container that needs nothing from its node. */ -}}
{{- define "tidegate.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Names, and the API server wherever it is. */ -}}
{{- define "tidegate.egress" -}}
- ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
- ports:
  {{- range .Values.networkPolicies.apiServerPorts }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
{{- end }}
