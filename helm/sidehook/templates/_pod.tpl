{{- /* What all pods of this chart have in common. Takes a dict of root, component and containers. */}}
{{- define "sidehook.podMetadata" -}}
labels:
  {{- include "sidehook.selector" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "sidehook.podSpec" -}}
restartPolicy: Never
serviceAccountName: {{ include "sidehook.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "sidehook.terminationGracePeriodSeconds" . }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /*
A pod that runs a command between the hooks before and after it. Takes a dict of root, component, operation, command and
volumeMounts.
*/}}
{{- define "sidehook.clientPod" -}}
{{- $root := .root }}
{{- with .root.Values }}
metadata:
  {{- include "sidehook.podMetadata" $ | nindent 2 }}
  annotations:
    {{- with .podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    kubectl.kubernetes.io/default-container: {{ $.component }}
spec:
  {{- include "sidehook.podSpec" $root | nindent 2 }}
  {{- if .sidecar.native }}
  initContainers:
    {{- include "sidehook.sidecar" $root | nindent 4 }}
  {{- end }}
  containers:
    {{- if not .sidecar.native }}
    {{- include "sidehook.plainSidecar" $root | nindent 4 }}
    {{- end }}
    - name: {{ $.component }}
      image: {{ .backup.image | quote }}
      imagePullPolicy: {{ .backup.pullPolicy }}
      command:
        {{- if not .sidecar.native }}
        {{- include "sidehook.waitForSidecar" $root | nindent 8 }}
        {{- end }}
        - /run/sidehook/sidehook
        - run
        - {{ $.operation | quote }}
        - --job
        - {{ include "sidehook.job" $root | quote }}
        {{- with .backup.wait }}
        - --wait
        - {{ . | quote }}
        {{- end }}
        {{- with .backup.timeout }}
        - --timeout
        - {{ . | quote }}
        {{- end }}
        - --
      args:
        {{- toYaml $.command | nindent 8 }}
      {{- with .backup.env }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .backup.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- toYaml .backup.securityContext | nindent 8 }}
      resources:
        {{- toYaml .backup.resources | nindent 8 }}
      volumeMounts:
        {{- include "sidehook.clientMount" $root | nindent 8 }}
        {{- if not .sidecar.native }}
        {{- include "sidehook.endMount" $root | nindent 8 }}
        {{- end }}
        {{- with $.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "sidehook.volumes" $root | nindent 4 }}
    {{- if not .sidecar.native }}
    - name: sidehook-end
      emptyDir: {}
    {{- end }}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}
