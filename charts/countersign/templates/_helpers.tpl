{{- define "countersign.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of every object. At most 50 characters, which leaves room for `-policy-owner`. */}}
{{- define "countersign.fullname" -}}
{{- $name := include "countersign.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The namespace of the operator and of all that has one and names no other. */}}
{{- define "countersign.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* The number of pods; `replicas` is its name in an earlier chart. */}}
{{- define "countersign.replicas" -}}
{{- ternary .Values.replicaCount .Values.replicas (kindIs "invalid" .Values.replicas) }}
{{- end }}

{{/* Whether the definitions are installed; empty if not. `crds.install` is its name in an earlier chart. */}}
{{- define "countersign.crds" -}}
{{- if ternary .Values.crds.enabled .Values.crds.install (kindIs "invalid" .Values.crds.install) }}true{{ end }}
{{- end }}

{{- define "countersign.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "countersign.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "countersign.selectorLabels" -}}
app.kubernetes.io/name: {{ include "countersign.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "countersign.podLabels" -}}
{{ include "countersign.selectorLabels" . }}
app.kubernetes.io/component: operator
{{- end }}

{{/* The labels by which the pods of `countersign notify` are selected. */}}
{{- define "countersign.notifyLabels" -}}
app.kubernetes.io/name: {{ printf "%s-notify" (include "countersign.name" . | trunc 56 | trimSuffix "-") }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* What the monitors select: the operator and, if it runs, `countersign notify`. */}}
{{- define "countersign.monitored" -}}
{{- if (.Values.notify).enabled -}}
matchLabels:
  app.kubernetes.io/instance: {{ .Release.Name | quote }}
matchExpressions:
  - key: app.kubernetes.io/name
    operator: In
    values:
      - {{ include "countersign.name" . | quote }}
      - {{ get (include "countersign.notifyLabels" . | fromYaml) "app.kubernetes.io/name" | quote }}
{{- else -}}
matchLabels:
  {{- include "countersign.selectorLabels" . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The labels of every object but the admission policies. The chart's own win over the common ones. */}}
{{- define "countersign.labels" -}}
{{- $own := dict "app.kubernetes.io/part-of" "countersign" "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service }}
{{- $chart := printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- $_ := set $own "helm.sh/chart" $chart }}
{{- merge $own (include "countersign.podLabels" . | fromYaml) (default dict .Values.commonLabels) | toYaml }}
{{- end }}

{{/* Labels and annotations of an object: (dict "root" $), with its own `labels` and `annotations`, which win. */}}
{{- define "countersign.metadata" -}}
labels:
  {{- merge dict (default dict .labels) (include "countersign.labels" .root | fromYaml) | toYaml | nindent 2 }}
{{- with merge dict (default dict .annotations) (default dict .root.Values.commonAnnotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Whether the admission policies are installed; empty if not, which takes more than removing the values. */}}
{{- define "countersign.admission" -}}
{{- if ne (toString (.Values.admission).install) "false" }}true{{ end }}
{{- end }}

{{/* Whether the mutating admission policies are installed; empty if not. Values of an older release have no mode. */}}
{{- define "countersign.mutating" -}}
{{- $mode := (.Values.admission).mutating }}
{{- $mode = ternary "auto" (toString $mode) (kindIs "invalid" $mode) }}
{{- $offered := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" }}
{{- if or (eq $mode "true") (and (eq $mode "auto") $offered) }}true{{ end }}
{{- end }}

{{/* The read permissions of every role for people. */}}
{{- define "countersign.readRules" }}
  - apiGroups: [countersign.dev]
    resources: [rollouts, rolloutpolicies, analysistemplates, rolloutruns, signoffs, interventions, freezes]
    verbs: [get, list, watch]
  - apiGroups: [countersign.dev]
    resources: [rollouts/scale]
    verbs: [get]
{{- end }}
