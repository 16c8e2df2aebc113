{{/*
What the operator may do in the namespaces that it serves. tests/chart/test_rbac.py holds the same as a table.
Server-side apply is `patch`, and `create` where it makes the object.
*/}}
{{- define "pagoda.serviceRules" -}}
- apiGroups: [pagoda.dev]
  resources: [inferenceservices]
  verbs: [list, watch]
- apiGroups: [pagoda.dev]
  resources: [inferenceservices/status]
  verbs: [patch]
# Where OwnerReferencesPermissionEnforcement is on (OpenShift), blockOwnerDeletion asks for this.
- apiGroups: [pagoda.dev]
  resources: [inferenceservices/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts, persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, list, watch, create, patch, delete]
# `patch` says which replica has the least work, before one is given up.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- if .Values.rbac.modelSecrets }}
- apiGroups: [""]
  resources: [secrets]
  {{- with .Values.rbac.modelSecretNames }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: [get]
{{- end }}
{{- end }}

{{- define "pagoda.nodeRules" -}}
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
{{- end }}
