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

{{/* CEL: the pod is not one that the operator created for a GPUWorkload. */}}
{{- define "gpufleet.hasAnotherOwner" -}}
!object.metadata.?ownerReferences.orValue([]).exists(owner, owner.kind == "GPUWorkload" && owner.?controller.orValue(false))
{{- end -}}

{{/* Not empty: policies add the gate and the limit to pods. Their API is part of Kubernetes since 1.36. */}}
{{- define "gpufleet.mutatesPods" -}}
{{- if and .Values.adoption.mutate (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") -}}
true
{{- end -}}
{{- end -}}

{{/*
CEL variables: the resource, and the containers to which a limit is added (none if one has it already).
Call with (dict "root" $ "spec" "object.spec").
*/}}
{{- define "gpufleet.limitVariables" -}}
- name: resource
  expression: {{ printf "params.spec.devices.mode == 'Shared' ? %s : %s" (squote .root.Values.sharedResource) (squote .root.Values.resource) | quote }}
- name: containers
  expression: params.spec.devices.?containers.orValue([])
- name: asks
  expression: >-
    ({{ .spec }}.containers + {{ .spec }}.?initContainers.orValue([]))
    .exists(c, variables.resource in c.?resources.?limits.orValue({}))
- name: target
  expression: >-
    params.spec.devices.?container.orValue(size({{ .spec }}.containers) == 1 ? {{ .spec }}.containers[0].name : '')
- name: names
  expression: >-
    variables.asks ? [] : size(variables.containers) > 0 ? variables.containers.map(d, d.name) : [variables.target]
{{- end -}}

{{/* CEL: the limit of container `name`. */}}
{{- define "gpufleet.limit" -}}
{variables.resource: string(size(variables.containers) > 0
? variables.containers.filter(d, d.name == name)[0].count : params.spec.devices.count)}
{{- end -}}
