{{- /* A CronJob's name may have 52 characters, and the longest of ours ends in `-recovery`. */}}
{{- define "sidehook.name" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) }}
{{- .Values.fullnameOverride | default $name | trunc 43 | trimSuffix "-" }}
{{- end }}

{{- define "sidehook.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sidehook.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "sidehook.selector" . }}
{{- end }}

{{- /* With the namespace, so that `helm template | kubectl apply` puts things where `helm install` would. */}}
{{- define "sidehook.metadata" -}}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "sidehook.labels" . | nindent 2 }}
{{- end }}

{{- /* Of the account whose token the sidecar has; a pod of your own that has the sidecar names it. */}}
{{- define "sidehook.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "sidehook.name" .) }}
{{- else }}
{{- required "serviceAccount.name: needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* On Kubernetes a job's turn counts for the whole namespace, so that two releases should not share a name. */}}
{{- define "sidehook.job" -}}
{{- .Values.backup.job | default (include "sidehook.name" .) }}
{{- end }}

{{- define "sidehook.image" -}}
{{- with .Values.image.digest }}
{{- printf "%s@%s" $.Values.image.repository . }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- /* Complains of values that contradict one another; a schema can say it of one value alone. */}}
{{- define "sidehook.check" -}}
{{- $from := .Values.hooksFrom }}
{{- if and .Values.hooks (or $from.configMap $from.volume) }}
{{- fail "hooks and hooksFrom: expected one of them, got both; the directory of hooks is one volume" }}
{{- end }}
{{- if and $from.configMap $from.volume }}
{{- fail "hooksFrom: expected configMap or volume, got both" }}
{{- end }}
{{- if and .Values.sidecar.native (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "sidecar.native: expected false on Kubernetes %s; native sidecars came with 1.29" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- end }}
