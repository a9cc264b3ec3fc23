{{- /* The parts of a pod that the operator's and that of `helm test` share. */}}

{{/* Values of an older release name the registry in the repository, and the default is none of theirs. */}}
{{- define "countersign.image" -}}
{{- $unset := "localhost" }}
{{- $registry := .Values.image.registry }}
{{- $first := splitList "/" .Values.image.repository | first }}
{{- if and (eq $registry $unset) (contains "/" .Values.image.repository) (regexMatch "[.:]|^localhost$" $first) }}
{{- $registry = "" }}
{{- end }}
{{- $registry = default $registry (.Values.global).imageRegistry }}
{{- $repository := list $registry .Values.image.repository | compact | join "/" }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
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

{{/* What a container runs, where it is admitted, and what it reads. */}}
{{- define "countersign.container" -}}
{{- $secret := .Values.prometheus.existingSecret }}
{{- $tls := .Values.prometheus.existingTlsSecret }}
{{- $configMap := .Values.prometheus.existingConfigMap }}
{{- $basic := or $secret.usernameKey $secret.passwordKey }}
{{- $token := and $secret.name $secret.key (not $basic) -}}
image: {{ include "countersign.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: POD_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  - name: POD_NAMESPACE
    valueFrom:
      fieldRef:
        fieldPath: metadata.namespace
  - name: COUNTERSIGN_LISTEN
    value: {{ printf "%s:8080" .Values.listenAddress | quote }}
  {{- if (.Values.metrics).auth }}
  - name: COUNTERSIGN_METRICS_AUTH
    value: "true"
  {{- end }}
  - name: COUNTERSIGN_LOG_FORMAT
    value: {{ .Values.log.format | quote }}
  - name: RUST_LOG
    value: {{ .Values.log.filter | quote }}
  {{- with .Values.prometheus.url }}
  - name: COUNTERSIGN_PROMETHEUS_URL
    value: {{ . | quote }}
  {{- end }}
  {{- with .Values.prometheus.lag }}
  - name: COUNTERSIGN_PROMETHEUS_LAG
    value: {{ . | quote }}
  {{- end }}
  {{- with .Values.prometheus.timeout }}
  - name: COUNTERSIGN_PROMETHEUS_TIMEOUT
    value: {{ . | quote }}
  {{- end }}
  {{- if .Values.prometheus.headers }}
  - name: COUNTERSIGN_PROMETHEUS_HEADERS
    value: {{ include "countersign.prometheusHeaders" . | quote }}
  {{- end }}
  {{- if and $secret.name $secret.headers }}
  - name: COUNTERSIGN_PROMETHEUS_HEADER_FILES
    value: {{ include "countersign.prometheusHeaderFiles" . | quote }}
  {{- end }}
  {{- if $token }}
  - name: COUNTERSIGN_PROMETHEUS_TOKEN_FILE
    value: /etc/countersign/prometheus/token
  {{- end }}
  {{- if and $secret.name $basic }}
  - name: COUNTERSIGN_PROMETHEUS_USERNAME_FILE
    value: /etc/countersign/prometheus/username
  - name: COUNTERSIGN_PROMETHEUS_PASSWORD_FILE
    value: /etc/countersign/prometheus/password
  {{- end }}
  {{- if $tls.name }}
  - name: COUNTERSIGN_PROMETHEUS_CERT_FILE
    value: /etc/countersign/prometheus/tls.crt
  - name: COUNTERSIGN_PROMETHEUS_KEY_FILE
    value: /etc/countersign/prometheus/tls.key
  {{- end }}
  {{- if $configMap.name }}
  - name: COUNTERSIGN_PROMETHEUS_CA_FILE
    value: /etc/countersign/prometheus/ca.crt
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or $secret.name $tls.name $configMap.name .Values.extraVolumeMounts }}
volumeMounts:
  {{- if or $secret.name $tls.name $configMap.name }}
  # The whole directory, not its files, so that renewed files arrive.
  - name: prometheus
    mountPath: /etc/countersign/prometheus
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The pod around it. */}}
{{- define "countersign.pod" -}}
{{- $secret := .Values.prometheus.existingSecret }}
{{- $tls := .Values.prometheus.existingTlsSecret }}
{{- $configMap := .Values.prometheus.existingConfigMap }}
{{- $basic := or $secret.usernameKey $secret.passwordKey }}
{{- $token := and $secret.name $secret.key (not $basic) }}
{{- if and $basic (not (and $secret.usernameKey $secret.passwordKey)) }}
{{- fail "prometheus.existingSecret needs usernameKey and passwordKey, or neither" }}
{{- end -}}
serviceAccountName: {{ include "countersign.serviceAccountName" . | quote }}
automountServiceAccountToken: true
# A Service with the operator's name would set environment variables COUNTERSIGN_….
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or $secret.name $tls.name $configMap.name .Values.extraVolumes }}
volumes:
  {{- if or $secret.name $tls.name $configMap.name }}
  - name: prometheus
    projected:
      defaultMode: 288 # 0440: readers of YAML 1.2 take no octal numbers
      sources:
        {{- if and $secret.name (or $token $basic $secret.headers) }}
        - secret:
            name: {{ $secret.name | quote }}
            items:
              {{- if $token }}
              - key: {{ $secret.key | quote }}
                path: token
              {{- end }}
              {{- if $basic }}
              - key: {{ $secret.usernameKey | quote }}
                path: username
              - key: {{ $secret.passwordKey | quote }}
                path: password
              {{- end }}
              {{- range $name, $key := $secret.headers }}
              - key: {{ $key | quote }}
                path: {{ printf "headers/%s" (lower $name) | quote }}
              {{- end }}
        {{- end }}
        {{- if $tls.name }}
        - secret:
            name: {{ $tls.name | quote }}
            items:
              - key: {{ $tls.certKey | quote }}
                path: tls.crt
              - key: {{ $tls.keyKey | quote }}
                path: tls.key
        {{- end }}
        {{- if $configMap.name }}
        - configMap:
            name: {{ $configMap.name | quote }}
            items:
              - key: {{ $configMap.key | quote }}
                path: ca.crt
        {{- end }}
  {{- end }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
