{{/*
What a platform changes, as YAML: how the agent gets the driver, how containers get devices, and the agent's privileges.
Values that are set take precedence; the table in README.md shows the same. Call with the name of a platform.
*/}}
{{- define "gpufleet.platform" -}}
{{- if eq . "nvidia-runtime" }}
driver: {access: Runtime, hostPath: ""}
driverRoot: /
deviceListStrategies: [envvar]
cdiKind: gpufleet.dev/gpu
{{- else if eq . "cdi" }}
driver: {access: Host, hostPath: ""}
driverRoot: /
deviceListStrategies: [cdi-cri]
cdiKind: nvidia.com/gpu
{{- else if eq . "driver-container" }}
driver: {access: Host, hostPath: ""}
driverRoot: /run/nvidia/driver
deviceListStrategies: [envvar]
cdiKind: nvidia.com/gpu
{{- else if eq . "gke" }}
driver: {access: Host, hostPath: /home/kubernetes/bin/nvidia/lib64}
driverRoot: /
deviceListStrategies: [envvar]
cdiKind: gpufleet.dev/gpu
passDeviceSpecs: true
containerMounts:
  - {hostPath: /home/kubernetes/bin/nvidia, containerPath: /usr/local/nvidia}
{{- else if eq . "bottlerocket" }}
driver: {access: VolumeMounts, hostPath: ""}
driverRoot: /
deviceListStrategies: [volume-mounts]
cdiKind: gpufleet.dev/gpu
securityContext:
  seLinuxOptions: {user: system_u, role: system_r, type: super_t, level: s0}
{{- else if eq . "openshift" }}
driver: {access: Host, hostPath: ""}
driverRoot: /run/nvidia/driver
deviceListStrategies: [envvar]
cdiKind: nvidia.com/gpu
{{- end }}
{{- end -}}

{{/*
The values of one DaemonSet of the agent, as YAML: agent.*, overridden by those of a pool, and by the platform where they
are empty. Call with (dict "root" $ "pool" <entry of agent.pools or an empty dict>).
*/}}
{{- define "gpufleet.agent" -}}
{{- $values := .root.Values -}}
{{- $agent := mergeOverwrite (deepCopy $values.agent) (deepCopy .pool) -}}
{{- $preset := include "gpufleet.platform" (default $values.platform .pool.platform) | fromYaml -}}
{{- $driver := dict "hostPath" (default $preset.driver.hostPath $agent.driver.hostPath) "devices" $agent.driver.devices -}}
{{- $usual := ternary "Host" $preset.driver.access (ne $driver.hostPath "") -}}
{{- $_ := set $driver "access" (default $usual $agent.driver.access) -}}
{{- if and (ne $driver.access "Host") $driver.hostPath -}}
{{- fail (printf "agent.driver.hostPath: Invalid value: %q: must be empty with agent.driver.access %s" $driver.hostPath $driver.access) -}}
{{- end -}}
{{- $_ := set $agent "driver" $driver -}}
{{- $_ := set $agent "driverRoot" (default $preset.driverRoot $agent.driverRoot) -}}
{{- $_ := set $agent "deviceListStrategies" (default $preset.deviceListStrategies $agent.deviceListStrategies) -}}
{{- $_ := set $agent.cdi "kind" (default $preset.cdiKind $agent.cdi.kind) -}}
{{- $_ := set $agent "passDeviceSpecs" (or $agent.passDeviceSpecs (default false $preset.passDeviceSpecs)) -}}
{{- $_ := set $agent "containerMounts" (default (default list $preset.containerMounts) $agent.containerMounts) -}}
{{- $_ := set $agent "transport" (default $values.transport .pool.transport) -}}
{{- $_ := set $agent "privileged" (and (eq $driver.access "Host") $driver.devices) -}}
{{- $own := dict "readOnlyRootFilesystem" true -}}
{{- if $agent.privileged -}}
{{- /* Also stated, so that a server-side apply changes a container that was not privileged. */ -}}
{{- $own = merge $own (dict "privileged" true "allowPrivilegeEscalation" true) -}}
{{- else if eq $agent.migStrategy "none" -}}
{{- $own = merge $own (dict "allowPrivilegeEscalation" false "capabilities" (dict "drop" (list "ALL"))) -}}
{{- else -}}
{{- /* Required by the driver to list all partitions. */ -}}
{{- $own = merge $own (dict "capabilities" (dict "drop" (list "ALL") "add" (list "SYS_ADMIN"))) -}}
{{- end -}}
{{- $_ := set $agent "securityContext" (mergeOverwrite $own (default dict $preset.securityContext) $agent.securityContext) -}}
{{- $pod := dict "runAsUser" 0 "runAsGroup" 0 "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- $_ := set $agent "podSecurityContext" (mergeOverwrite $pod $agent.podSecurityContext) -}}
{{- toYaml $agent -}}
{{- end -}}
