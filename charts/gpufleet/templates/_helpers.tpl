{{- define "gpufleet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Prefix of all names: "gpufleet" for a release of that name. Truncated to leave room for suffixes. */}}
{{- define "gpufleet.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "gpufleet.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels that select pods, immutable once installed. Call with (dict "root" $ "component" "agent"). */}}
{{- define "gpufleet.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gpufleet.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "gpufleet.labels" -}}
{{ include "gpufleet.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "gpufleet.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* User name of the agent at the apiserver. */}}
{{- define "gpufleet.agentUsername" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "gpufleet.fullname" . }}-agent
{{- end -}}

{{/* CEL: the caller has the custom verb that only the operator's role grants. */}}
{{- define "gpufleet.holdsAssign" -}}
authorizer.group('gpufleet.dev').resource('gputelemetries').check('assign').allowed()
{{- end -}}

{{/* CEL: the caller may take devices out of service. */}}
{{- define "gpufleet.holdsCordon" -}}
authorizer.group('gpufleet.dev').resource('gputelemetries').check('cordon').allowed()
{{- end -}}
