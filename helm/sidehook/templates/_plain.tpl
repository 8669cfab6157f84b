{{- /*
`sidecar.native: false`, for clusters before 1.29: the sidecar is a container like the backup, and nobody ends it when
the backup has ended. So the backup keeps a FIFO open as long as it lives, and the kernel closes it, whatever the backup
dies of. Until then the sidecar is started again when it dies, and once the backup has begun it does not listen to TERM:
a pod that is deleted sends it to all at once, and the backup still has its hooks to run. Kubernetes makes `$$` of
`$$$$`: it knows variables of its own in commands.
*/}}
{{- define "sidehook.plainSidecar" -}}
- name: sidehook
  {{- include "sidehook.container" . | nindent 2 }}
    {{- include "sidehook.endMount" . | nindent 4 }}
  command:
    - sh
    - -c
    - |
      ended= code=0 serve=
      end() { ended=yes; [ -z "$serve" ] || kill -s TERM "$serve" 2>/dev/null; }
      trap end USR1
      trap '[ -e /tmp/backup-began ] || end' TERM
      mkfifo -m 0660 /run/sidehook-end/backup
      (exec 4</run/sidehook-end/backup; : >/tmp/backup-began; cat <&4 >/dev/null; kill -s USR1 "$$$$") &
      until [ "$ended" ]; do
        sidehook serve &
        serve=$!
        [ -z "$ended" ] || end
        wait "$serve"
        code=$?
        while kill -s 0 "$serve" 2>/dev/null; do wait "$serve"; code=$?; done
        [ "$ended" ] || sleep 1
      done
      exit "$code"
{{- end }}

{{- define "sidehook.endMount" -}}
- name: sidehook-end
  mountPath: /run/sidehook-end
{{- end }}

{{- /* Descriptor 3 is the one that neither the client nor its command uses: the command inherits it. */}}
{{- define "sidehook.waitForSidecar" -}}
- sh
- -c
- |
  tries=0
  wait_for() {
    until [ "$1" "$2" ]; do
      tries=$((tries + 1))
      [ "$tries" -le 120 ] || { echo 'sidehook: no sidecar within 2 minutes' >&2; exit 69; }
      sleep 1
    done
  }
  wait_for -p /run/sidehook-end/backup
  exec 3>/run/sidehook-end/backup
  wait_for -x /run/sidehook/sidehook
  exec "$@"
- sidehook
{{- end }}
