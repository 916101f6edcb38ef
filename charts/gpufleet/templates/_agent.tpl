{{/*
One DaemonSet of the agent. Call with (dict "root" $ "agent" <values by gpufleet.agent> "suffix" "-a100" "pool" "a100"
"transport" "DRA" "perNode" true).
*/}}
{{- define "gpufleet.agentDaemonSet" -}}
{{- $root := .root }}
{{- $values := .root.Values }}
{{- $agent := .agent }}
{{- $it := dict "root" $root "component" "agent" "annotations" $agent.annotations }}
{{- $dra := eq .transport "DRA" }}
{{- $serves := and $dra (include "gpufleet.servesClaims" $root) }}
{{- $cdi := or $dra (has "cdi-cri" $agent.deviceListStrategies) (has "cdi-annotations" $agent.deviceListStrategies) }}
{{- /* Mounted at the same path as on the host, unless it is already mounted there as the driver. */ -}}
{{- $mounted := and (eq $agent.driverRoot "/opt/gpufleet/driver") (eq $agent.driver.hostPath $agent.driverRoot) }}
{{- $driverRoot := and (ne $agent.driverRoot "/") (not $mounted) }}
{{- $host := eq $agent.driver.access "Host" }}
{{- $libraryRoot := and $host (not $agent.driver.hostPath) }}
{{- $distinct := dict }}
{{- if .pool }}{{ $_ := set $distinct "gpufleet.dev/pool" .pool }}{{ end }}
{{- if and .perNode $dra }}{{ $_ := set $distinct "gpufleet.dev/transport" "DRA" }}{{ end }}
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ include "gpufleet.fullname" $root }}-agent{{ .suffix }}
  namespace: {{ include "gpufleet.namespace" $root }}
  labels: {{- include "gpufleet.labels" $it | nindent 4 }}{{ include "gpufleet.annotations" $it }}
spec:
  selector:
    matchLabels:
      {{- include "gpufleet.selectorLabels" $it | nindent 6 }}
      {{- with $distinct }}{{ toYaml . | nindent 6 }}{{ end }}
  updateStrategy: {{- toYaml $agent.updateStrategy | nindent 4 }}
  template:
    metadata:
      labels:
        {{- with mergeOverwrite (deepCopy $values.commonLabels) $agent.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
        {{- include "gpufleet.selectorLabels" $it | nindent 8 }}
        {{- with $distinct }}{{ toYaml . | nindent 8 }}{{ end }}
      annotations:
        kubectl.kubernetes.io/default-container: agent
        {{- with mergeOverwrite (deepCopy $values.commonAnnotations) $agent.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec:
      serviceAccountName: {{ include "gpufleet.serviceAccountName" $it }}
      {{- with $agent.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $agent.runtimeClassName }}
      runtimeClassName: {{ . }}
      {{- end }}
      {{- with include "gpufleet.imagePullSecrets" $root | trim }}{{ nindent 6 . }}{{ end }}
      terminationGracePeriodSeconds: 10
      hostPID: {{ $agent.hostPID }}
      {{- if $agent.hostNetwork }}
      hostNetwork: true
      {{- end }}
      {{- with $agent.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "" $agent.hostNetwork) }}
      dnsPolicy: {{ . }}
      {{- end }}
      # User 0: the kubelet's sockets belong to root.
      securityContext: {{- toYaml $agent.podSecurityContext | nindent 8 }}
      {{- with $agent.extraInitContainers }}
      initContainers: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: agent
          image: {{ include "gpufleet.image" (dict "root" $root "image" $agent.image) }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          command: [gpufleet-agent]
          args:
            - --transport={{ .transport }}
            {{- if $dra }}
            - --dra-driver={{ $values.dra.driver }}
            {{- end }}
            - --resource={{ $values.resource }}
            - --shared-resource={{ $values.sharedResource }}
            - --shared-slots={{ $agent.sharedSlots }}
            - --mig-strategy={{ $agent.migStrategy }}
            - --device-list-strategy={{ join "," $agent.deviceListStrategies }}
            {{- with $values.health.ignoreXids }}
            - --ignore-xids={{ join "," . }}
            {{- end }}
            {{- with $values.health.fatalXids }}
            - --fatal-xids={{ join "," . }}
            {{- end }}
            - --on-xid-without-action={{ $values.health.onXidWithoutAction }}
            - --driver-root={{ $agent.driverRoot }}
            {{- if $libraryRoot }}
            - --driver-library-root={{ ternary $agent.driverRoot "/opt/gpufleet/host" $driverRoot }}
            {{- end }}
            - --cdi-root={{ $agent.cdi.root }}
            - --cdi-kind={{ $agent.cdi.kind }}
            {{- if $agent.passDeviceSpecs }}
            - --pass-device-specs
            {{- end }}
            {{- range $agent.containerMounts }}
            - --container-mount={{ .hostPath }}:{{ .containerPath }}
            {{- end }}
            - --sample-seconds={{ $agent.sampleSeconds }}
            - --window-seconds={{ $agent.windowSeconds }}
            - --heartbeat-seconds={{ $agent.heartbeatSeconds }}
            - --report-seconds={{ $agent.reportSeconds }}
            - --device-plugin-dir={{ $agent.kubelet.devicePluginDir }}
            - --pod-resources-socket={{ $agent.kubelet.podResourcesDir }}/kubelet.sock
            {{- if $serves }}
            - --plugins-dir={{ $agent.kubelet.pluginsDir }}
            - --plugins-registry-dir={{ $agent.kubelet.pluginsRegistryDir }}
            {{- end }}
            - --state-dir={{ $agent.stateDir }}
            - --metrics-pod-labels={{ $values.metrics.podLabels }}
            - --metrics-dcgm-names={{ $values.metrics.dcgmNames }}
            - --metrics-hostname-label={{ $values.metrics.hostnameLabel }}
            - --listen=0.0.0.0:{{ $agent.port }}
            - --log-level={{ $agent.logLevel }}
            - --log-format={{ $agent.logFormat }}
            {{- with $agent.extraArgs }}{{ toYaml . | nindent 12 }}{{ end }}
          env:
            - name: NODE_NAME
              valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
            # A restarted kubelet knows its pods when it lists the agent's own pod.
            - name: POD_NAMESPACE
              valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
            - name: POD_NAME
              valueFrom: {fieldRef: {fieldPath: metadata.name}}
            {{- if $agent.driver.hostPath }}
            - {name: LD_LIBRARY_PATH, value: /opt/gpufleet/driver}
            {{- end }}
            {{- if not $host }}
            # For the NVIDIA Container Toolkit: inject the management library and all devices.
            - {name: NVIDIA_VISIBLE_DEVICES, value: {{ ternary "all" "/var/run/nvidia-container-devices" (eq $agent.driver.access "Runtime") }}}
            - {name: NVIDIA_DRIVER_CAPABILITIES, value: utility}
            {{- if ne $agent.migStrategy "none" }}
            - {name: NVIDIA_MIG_MONITOR_DEVICES, value: all}
            {{- end }}
            {{- end }}
            {{- with $agent.extraEnv }}{{ toYaml . | nindent 12 }}{{ end }}
          ports:
            - {name: metrics, containerPort: {{ $agent.port }}}
          startupProbe:
            httpGet: {path: /healthz, port: metrics}
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /healthz, port: metrics}
            periodSeconds: 10
            timeoutSeconds: 5
          readinessProbe:
            httpGet: {path: /readyz, port: metrics}
            periodSeconds: 5
            timeoutSeconds: 5
          resources: {{- toYaml $agent.resources | nindent 12 }}
          securityContext: {{- toYaml $agent.securityContext | nindent 12 }}
          volumeMounts:
            - {name: device-plugins, mountPath: {{ $agent.kubelet.devicePluginDir }}}
            - {name: pod-resources, mountPath: {{ $agent.kubelet.podResourcesDir }}, readOnly: true}
            {{- if $serves }}
            - {name: plugin, mountPath: {{ $agent.kubelet.pluginsDir }}/gpu.gpufleet.dev}
            - {name: plugins-registry, mountPath: {{ $agent.kubelet.pluginsRegistryDir }}}
            {{- end }}
            {{- if $agent.stateDir }}
            - {name: state, mountPath: {{ $agent.stateDir }}}
            {{- end }}
            {{- if $agent.driver.hostPath }}
            - {name: driver, mountPath: /opt/gpufleet/driver, readOnly: true}
            {{- end }}
            {{- if and $libraryRoot (not $driverRoot) }}
            - {name: host-usr, mountPath: /opt/gpufleet/host/usr, readOnly: true}
            {{- end }}
            {{- if $driverRoot }}
            - {name: driver-root, mountPath: {{ $agent.driverRoot }}, readOnly: true, mountPropagation: HostToContainer}
            {{- end }}
            {{- if $agent.privileged }}
            - {name: devices, mountPath: /dev, mountPropagation: HostToContainer}
            {{- end }}
            {{- if eq $agent.driver.access "VolumeMounts" }}
            - {name: all-devices, mountPath: /var/run/nvidia-container-devices/all}
            {{- end }}
            {{- if $cdi }}
            - {name: cdi, mountPath: {{ $agent.cdi.root }}}
            {{- end }}
            {{- with $agent.extraVolumeMounts }}{{ toYaml . | nindent 12 }}{{ end }}
        {{- with $agent.extraContainers }}{{ toYaml . | nindent 8 }}{{ end }}
      volumes:
        - name: device-plugins
          hostPath: {path: {{ $agent.kubelet.devicePluginDir }}, type: Directory}
        - name: pod-resources
          hostPath: {path: {{ $agent.kubelet.podResourcesDir }}, type: Directory}
        {{- if $serves }}
        - name: plugin
          hostPath: {path: {{ $agent.kubelet.pluginsDir }}/gpu.gpufleet.dev, type: DirectoryOrCreate}
        - name: plugins-registry
          hostPath: {path: {{ $agent.kubelet.pluginsRegistryDir }}, type: Directory}
        {{- end }}
        {{- with $agent.stateDir }}
        - name: state
          hostPath: {path: {{ . }}, type: DirectoryOrCreate}
        {{- end }}
        {{- with $agent.driver.hostPath }}
        - name: driver
          hostPath: {path: {{ . }}, type: Directory}
        {{- end }}
        {{- if and $libraryRoot (not $driverRoot) }}
        - name: host-usr
          hostPath: {path: /usr, type: Directory}
        {{- end }}
        {{- if $driverRoot }}
        - name: driver-root
          hostPath: {path: {{ $agent.driverRoot }}, type: Directory}
        {{- end }}
        {{- if $agent.privileged }}
        - name: devices
          hostPath: {path: {{ trimSuffix "/" $agent.driverRoot }}/dev, type: Directory}
        {{- end }}
        {{- if eq $agent.driver.access "VolumeMounts" }}
        - name: all-devices
          hostPath: {path: /dev/null, type: CharDevice}
        {{- end }}
        {{- if $cdi }}
        - name: cdi
          hostPath: {path: {{ $agent.cdi.root }}, type: DirectoryOrCreate}
        {{- end }}
        {{- with $agent.extraVolumes }}{{ toYaml . | nindent 8 }}{{ end }}
      {{- with $agent.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if .perNode }}
      affinity:
        {{- with $agent.affinity }}{{ toYaml . | nindent 8 }}{{ end }}
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - {key: gpufleet.dev/transport, operator: {{ ternary "In" "NotIn" $dra }}, values: [DRA]}
      {{- else }}
      {{- with $agent.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- with $agent.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}
