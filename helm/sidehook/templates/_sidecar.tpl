{{- /*
For a pod of your own, in a chart that has this one among its dependencies; each takes `.Subcharts.sidehook`:

  sidehook.sidecar      a list with the container: under initContainers, or containers where sidecar.native is false
  sidehook.volumes      a list of its volumes
  sidehook.clientMount  a list with the volumeMount of a container that gives signals
  sidehook.serviceAccountName, sidehook.terminationGracePeriodSeconds, sidehook.checksum

The pod says automountServiceAccountToken: false, so that nobody but the sidecar has a token.
*/}}
{{- define "sidehook.sidecar" -}}
- name: sidehook
  {{- if .Values.sidecar.native }}
  # A native sidecar: it is up before the containers of the pod begin, and is told to end after they have.
  restartPolicy: Always
  {{- end }}
  {{- include "sidehook.container" . | nindent 2 }}
{{- end }}

{{- define "sidehook.clientMount" -}}
- name: sidehook-run
  mountPath: /run/sidehook
{{- end }}

{{- /* The pod is made anew when hooks' or settings' text has changed; hooks alone would be read anew without that. */}}
{{- define "sidehook.checksum" -}}
checksum/sidehook: {{ list .Values.engine .Values.settings .Values.hooks | toJson | sha256sum }}
{{- end }}

{{- /* The container without its name. */}}
{{- define "sidehook.container" -}}
{{ include "sidehook.imageOf" . }}
{{- if or (eq .Values.engine "kubernetes") .Values.sidecar.env }}
env:
  {{- include "sidehook.ownEnv" . | nindent 2 }}
  {{- with .Values.sidecar.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with .Values.sidecar.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- /*
The client and the socket are there. Not `sidehook health`: where the engine does not answer, a backup should fail and
say so, rather than never begin.
*/}}
startupProbe:
  exec:
    command: [test, -S, /run/sidehook/sidehook.sock]
  periodSeconds: 1
  timeoutSeconds: 10
  failureThreshold: 120
{{ include "sidehook.limits" . }}
volumeMounts:
  {{- include "sidehook.ownMounts" . | nindent 2 }}
  {{- include "sidehook.hooksMount" . | nindent 2 }}
  {{- with .Values.sidecar.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "sidehook.volumes" -}}
{{- include "sidehook.check" . -}}
{{- include "sidehook.ownVolumes" (dict "root" . "state" .Values.state.volume) }}
{{ include "sidehook.hooksVolume" . }}
{{- end }}

{{- /* From here on: what every container with sidehook in it has, those of the recovery and the test, too. */}}
{{- define "sidehook.imageOf" -}}
image: {{ include "sidehook.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "sidehook.ownEnv" -}}
{{- if eq .Values.engine "kubernetes" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end }}
{{- end }}

{{- define "sidehook.limits" -}}
securityContext:
  {{- toYaml .Values.sidecar.securityContext | nindent 2 }}
resources:
  {{- toYaml .Values.sidecar.resources | nindent 2 }}
{{- end }}

{{- define "sidehook.ownMounts" -}}
{{ include "sidehook.clientMount" . }}
- name: sidehook-state
  mountPath: /var/lib/sidehook
- name: sidehook-tmp
  mountPath: /tmp
- name: sidehook-settings
  mountPath: /etc/sidehook/sidehook.yaml
  subPath: sidehook.yaml
  readOnly: true
{{- if eq .Values.engine "kubernetes" }}
# The only container of the pod that has it.
- name: sidehook-token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}
{{- end }}

{{- /* Takes a dict of root and state, a volume source or nothing. */}}
{{- define "sidehook.ownVolumes" -}}
- name: sidehook-run
  emptyDir: {}
- name: sidehook-state
  {{- .state | default (dict "emptyDir" dict) | toYaml | nindent 2 }}
- name: sidehook-tmp
  emptyDir: {}
- name: sidehook-settings
  configMap:
    name: {{ include "sidehook.name" .root }}-settings
{{- if eq .root.Values.engine "kubernetes" }}
# What automountServiceAccountToken would give to every container of the pod.
- name: sidehook-token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3600
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
{{- end }}
{{- end }}

{{- define "sidehook.hooksMount" -}}
- name: sidehook-hooks
  mountPath: /etc/sidehook/hooks.d
  {{- with .Values.hooksFrom.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
  readOnly: true
{{- end }}

{{- define "sidehook.hooksVolume" -}}
- name: sidehook-hooks
  {{- if .Values.hooksFrom.volume }}
  {{- toYaml .Values.hooksFrom.volume | nindent 2 }}
  {{- else }}
  configMap:
    name: {{ .Values.hooksFrom.configMap | default (printf "%s-hooks" (include "sidehook.name" .)) }}
    defaultMode: 0555
  {{- end }}
{{- end }}
