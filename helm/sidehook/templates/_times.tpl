{{- /* Whole seconds of a duration such as 1h30m, rounded up. */}}
{{- define "sidehook.seconds" -}}
{{- $seconds := 0 }}
{{- range regexFindAll "[0-9]+(ms|[dhms])" . -1 }}
{{- $number := regexFind "^[0-9]+" . | atoi }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- if eq $unit "ms" }}
{{- $seconds = add $seconds (div (add $number 999) 1000) }}
{{- else }}
{{- $seconds = add $seconds (mul $number (get (dict "d" 86400 "h" 3600 "m" 60 "s" 1) $unit)) }}
{{- end }}
{{- end }}
{{- $seconds }}
{{- end }}

{{- /*
How long a hook of `hooks` may take after the backup, in seconds: its time-out for each of its tries, by its header. 0 if
it has nothing to do then. Takes a dict of script and timeout.
*/}}
{{- define "sidehook.hookSeconds" -}}
{{- $header := regexFindAll "(?m)^\\s*(#+|//+|--|;+)\\s*sidehook:.*$" .script -1 | join " " }}
{{- $on := regexFind "\\son=\\S+" $header }}
{{- if or (not $on) (regexMatch "\\.(post|\\*)" $on) }}
{{- $timeout := regexFind "\\stimeout=\\S+" $header | trimPrefix " timeout=" | default .timeout }}
{{- $retries := regexFind "\\sretries=[0-9]+" $header | trim | trimPrefix "retries=" | default "0" | atoi }}
{{- mul (include "sidehook.seconds" $timeout) (add 1 $retries) }}
{{- else }}0{{ end }}
{{- end }}

{{- /*
What a pod that is told to end needs at most: the backup to end, its hooks after it one by one, and the workloads that
were held to be up again. An upper bound: the pod is gone as soon as all that is done.
*/}}
{{- define "sidehook.terminationGracePeriodSeconds" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
{{- $timeout := dig "hooks" "timeout" "1h" .Values.settings }}
{{- $seconds := 60 }}
{{- range .Values.hooks }}
{{- $seconds = add $seconds (include "sidehook.hookSeconds" (dict "script" . "timeout" $timeout)) }}
{{- end }}
{{- $isKubernetes := eq .Values.engine "kubernetes" }}
{{- if or .Values.hooksFrom.configMap .Values.hooksFrom.volume (and $isKubernetes .Values.features.exec) }}
{{- /* Hooks that cannot be seen from here: those of a volume, and those in annotations */}}
{{- $seconds = add $seconds (include "sidehook.seconds" $timeout) }}
{{- end }}
{{- if and $isKubernetes .Values.features.scale }}
{{- $seconds = add $seconds (include "sidehook.seconds" (dig "hold" "health-timeout" "2m" .Values.settings)) }}
{{- end }}
{{- $seconds }}
{{- else }}
{{- .Values.terminationGracePeriodSeconds }}
{{- end }}
{{- end }}
