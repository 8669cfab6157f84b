{{- /* Takes a dict of root, name, schedule, suspend, and what `sidehook.clientPod` takes. */}}
{{- define "sidehook.cronJob" -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ .name }}
  {{- include "sidehook.metadata" .root | nindent 2 }}
spec:
  schedule: {{ .schedule | quote }}
  {{- with .root.Values.cronJob }}
  {{- with .timeZone }}
  timeZone: {{ . | quote }}
  {{- end }}
  suspend: {{ $.suspend }}
  concurrencyPolicy: Forbid
  {{- with .startingDeadlineSeconds }}
  startingDeadlineSeconds: {{ . }}
  {{- end }}
  successfulJobsHistoryLimit: {{ .successfulJobsHistoryLimit }}
  failedJobsHistoryLimit: {{ .failedJobsHistoryLimit }}
  jobTemplate:
    spec:
      # A hook that fails says why; to run it at once again would not change that.
      backoffLimit: 0
      {{- with .activeDeadlineSeconds }}
      activeDeadlineSeconds: {{ . }}
      {{- end }}
      {{- with .ttlSecondsAfterFinished }}
      ttlSecondsAfterFinished: {{ . }}
      {{- end }}
      template:
        {{- include "sidehook.clientPod" $ | trim | nindent 8 }}
  {{- end }}
{{- end }}
