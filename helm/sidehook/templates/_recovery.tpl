{{- /*
A CronJob of sidehook alone. Takes a dict of root, component, args, schedule, suspend.
*/}}
{{- define "sidehook.recovery" -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ include "sidehook.name" .root }}-{{ .component }}
  {{- include "sidehook.metadata" .root | nindent 2 }}
spec:
  schedule: {{ .schedule | quote }}
  suspend: {{ .suspend }}
  concurrencyPolicy: Forbid
  successfulJobsHistoryLimit: 1
  failedJobsHistoryLimit: 1
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        metadata:
          {{- include "sidehook.podMetadata" (dict "root" .root "component" .component) | nindent 10 }}
        spec:
          {{- include "sidehook.podSpec" .root | nindent 10 }}
          containers:
            - name: {{ .component }}
              {{- include "sidehook.imageOf" .root | nindent 14 }}
              args: {{ .args | toJson }}
              env:
                {{- include "sidehook.ownEnv" .root | nindent 16 }}
              {{- include "sidehook.limits" .root | nindent 14 }}
              volumeMounts:
                {{- include "sidehook.ownMounts" .root | nindent 16 }}
          # None of the lost pod's: a volume may still be tied to the node that is gone.
          volumes:
            {{- include "sidehook.ownVolumes" (dict "root" .root "state" nil) | nindent 12 }}
{{- end }}
