{{/*
A file of dashboards or alerts, which have templates of their own and are not rendered by Helm. They are written for a
release named gpufleet in namespace gpufleet-system. Call with (dict "root" $ "path" <path>).
*/}}
{{- define "gpufleet.monitoringFile" -}}
{{- $fullname := include "gpufleet.fullname" .root -}}
{{- $runbooks := .root.Values.metrics.runbookURL | trimSuffix "/" | default "docs/operations/runbooks" -}}
{{- $text := .root.Files.Get .path | replace "docs/operations/runbooks" $runbooks -}}
{{- $text = $text | replace "gpufleet-agent" (printf "%s-agent" $fullname) -}}
{{- $text | replace "gpufleet-operator" (printf "%s-operator" $fullname) -}}
{{- end -}}
