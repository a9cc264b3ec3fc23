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

{{- define "countersign.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "countersign.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "countersign.selectorLabels" -}}
app.kubernetes.io/name: {{ include "countersign.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "countersign.podLabels" -}}
{{ include "countersign.selectorLabels" . }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "countersign.labels" -}}
{{ include "countersign.podLabels" . }}
app.kubernetes.io/part-of: countersign
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "countersign.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* The headers for Prometheus, one a line. */}}
{{- define "countersign.prometheusHeaders" -}}
{{- $lines := list }}
{{- range $name, $value := .Values.prometheus.headers }}
{{- $lines = append $lines (printf "%s=%s" $name $value) }}
{{- end }}
{{- join "\n" $lines }}
{{- end }}

{{/* The headers whose values are mounted from the Secret, one a line. */}}
{{- define "countersign.prometheusHeaderFiles" -}}
{{- $lines := list }}
{{- range $name, $key := .Values.prometheus.existingSecret.headers }}
{{- $lines = append $lines (printf "%s=/etc/countersign/prometheus/headers/%s" $name (lower $name)) }}
{{- end }}
{{- join "\n" $lines }}
{{- end }}

{{/* Whether the mutating admission policies are installed; empty if not. Values of an older release have no mode. */}}
{{- define "countersign.mutating" -}}
{{- $mode := .Values.admission.mutating }}
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
