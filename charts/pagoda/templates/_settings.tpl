{{/* The operator's settings file: the keys are those of `Settings` in operator/pagoda_operator/core/settings.py. */}}
{{- define "pagoda.settings" -}}
engineImage: {{ default (printf "pagoda-engine:%s" .Chart.AppVersion) .Values.engine.image | quote }}
engineEnv:
  {{- $env := .Values.engine.env }}
  {{- with .Values.hfEndpoint }}
  {{- $env = prepend $env (dict "name" "HF_ENDPOINT" "value" .) }}
  {{- end }}
  {{- toYaml $env | nindent 2 }}
tolerations:
  {{- toYaml .Values.engine.tolerations | nindent 2 }}
runAsUser: {{ .Values.engine.runAsUser | int64 }}
drainDelay: {{ .Values.engine.drainDelay }}
shutdownTimeout: {{ .Values.engine.shutdownTimeout }}
prometheusAddress: {{ .Values.prometheusAddress | quote }}
scalerAddress: {{ ternary (printf "%s-scaler.%s:9443" (include "pagoda.fullname" .) .Release.Namespace) "" .Values.scaler.enabled | quote }}
externalMetrics: {{ .Values.externalMetrics.enabled }}
prometheusAuthentication: {{ .Values.prometheusAuthentication.name | quote }}
prometheusAuthModes: {{ toJson .Values.prometheusAuthentication.modes }}
{{- end }}
