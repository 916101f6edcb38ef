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
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The key annotations of an object's metadata, or nothing. Call with (dict "root" $ "annotations" <its own, optional>). */}}
{{- define "gpufleet.annotations" -}}
{{- with mergeOverwrite (deepCopy .root.Values.commonAnnotations) (default dict .annotations) }}
  annotations: {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "gpufleet.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/* An image. Call with (dict "root" $ "image" .Values.agent.image). */}}
{{- define "gpufleet.image" -}}
{{- $values := .root.Values -}}
{{- with default $values.image.registry $values.global.imageRegistry }}{{ . }}/{{ end -}}
{{ .image.repository }}:{{ default $values.image.tag .image.tag | default .root.Chart.AppVersion }}
{{- with .image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* The key imagePullSecrets of a pod, or nothing. */}}
{{- define "gpufleet.imagePullSecrets" -}}
{{- with concat .Values.global.imagePullSecrets .Values.imagePullSecrets | uniq }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Security context of a pod, and of a container, of the pod security level restricted. */}}
{{- define "gpufleet.restrictedPod" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "gpufleet.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Name of a component's ServiceAccount. Call with (dict "root" $ "component" "agent"). */}}
{{- define "gpufleet.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- if and (not $account.create) (not $account.name) -}}
{{- fail (printf "%s.serviceAccount.name: Required value: set it to an existing ServiceAccount, or create to true" .component) -}}
{{- end -}}
{{- default (printf "%s-%s" (include "gpufleet.fullname" .root) .component) $account.name -}}
{{- end -}}

{{/* The transport of all nodes, by the value of the chart or of pools: PerNode if they differ. */}}
{{- define "gpufleet.transport" -}}
{{- $transports := list -}}
{{- range .Values.agent.pools }}{{ $transports = append $transports (default $.Values.transport .transport) }}{{ end -}}
{{- $transports = default (list .Values.transport) (uniq $transports) -}}
{{- eq (len $transports) 1 | ternary (first $transports) "PerNode" -}}
{{- end -}}

{{/* Not empty: a node may have transport DRA. */}}
{{- define "gpufleet.usesDRA" -}}
{{- if ne (include "gpufleet.transport" .) "DevicePlugin" }}true{{ end -}}
{{- end -}}

{{/* Not empty: agents serve claims. Another driver has its own permissions and its own DeviceClass. */}}
{{- define "gpufleet.servesClaims" -}}
{{- if and (include "gpufleet.usesDRA" .) (eq .Values.dra.driver "gpu.gpufleet.dev") }}true{{ end -}}
{{- end -}}

{{/* User name of the agent at the apiserver. */}}
{{- define "gpufleet.agentUsername" -}}
system:serviceaccount:{{ include "gpufleet.namespace" . }}:{{ include "gpufleet.serviceAccountName" (dict "root" . "component" "agent") }}
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
    || {{ .spec }}.?resourceClaims.orValue([]).exists(c, c.name == 'gpufleet')
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

{{/* Rules of the operator in the namespaces of GPUWorkloads: of a ClusterRole, or of a Role for each of watchNamespaces. */}}
{{- define "gpufleet.operatorWrites" -}}
- apiGroups: [gpufleet.dev]
  resources: [gpuworkloads]
  # Finished workloads, after spec.runPolicy.ttlSecondsAfterFinished.
  verbs: [delete]
- apiGroups: [gpufleet.dev]
  resources: [gpuworkloads/status]
  verbs: [patch]
# Use of earlier runs. No other subject may write it: with placement.demand Learned, pods are placed by it.
- apiGroups: [gpufleet.dev]
  resources: [gpudemands]
  verbs: [create, patch, delete]
- apiGroups: [gpufleet.dev]
  resources: [gpudemands/status]
  verbs: [patch]
- apiGroups: [gpufleet.dev]
  resources: [gpuworkloads/finalizers]
  # Pods and Services have owner references with blockOwnerDeletion; OwnerReferencesPermissionEnforcement asks for this.
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [create, patch, delete]
{{- if .Values.operator.scaleUp }}
# The condition PodScheduled of placeholder pods.
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
{{- end }}
# To drain a GPU.
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
- apiGroups: [""]
  resources: [services]
  verbs: [create, patch]
{{- if .Values.operator.kueue }}
# The state of the AdmissionChecks, and the end of a reservation of quota.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads/status]
  verbs: [patch]
{{- end }}
{{- if include "gpufleet.usesDRA" . }}
# For pods on nodes with transport DRA.
- apiGroups: [resource.k8s.io]
  resources: [resourceclaims]
  verbs: [create, delete]
{{- end }}
{{- end -}}
