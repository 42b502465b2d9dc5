{{/* What selects this run's pods, and nothing else's. */}}
{{- define "fedtrain.selector" -}}
app.kubernetes.io/name: fedtrain
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "fedtrain.labels" -}}
{{ include "fedtrain.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: fedctl
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
fedctl/digest: {{ include "fedtrain.digest" . | quote }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of the pods: none that changes with the chart alone. */}}
{{- define "fedtrain.podLabels" -}}
{{ include "fedtrain.selector" . }}
app.kubernetes.io/part-of: fedctl
fedctl/digest: {{ include "fedtrain.digest" . | quote }}
{{- range $labels := list .Values.labels .Values.podLabels }}
{{- with $labels }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Labels of the job: the queue's as well. */}}
{{- define "fedtrain.jobLabels" -}}
{{ include "fedtrain.labels" . }}
{{- if eq .Values.queue.kind "kueue" }}
kueue.x-k8s.io/queue-name: {{ .Values.queue.name | quote }}
{{- with .Values.queue.priorityClass }}
kueue.x-k8s.io/priority-class: {{ . | quote }}
{{- end }}
{{- with include "fedtrain.hardDeadline" . }}
kueue.x-k8s.io/max-exec-time-seconds: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The twelve digits by which the trainer knows its experiment: it is in canonical form, so its text's hash is it. */}}
{{- define "fedtrain.digest" -}}
{{ .Values.experiment | sha256sum | trunc 12 }}
{{- end -}}

{{/* Ranks, and so pods. The experiment says how many; nothing else may. */}}
{{- define "fedtrain.ranks" -}}
{{ dig "ranks" 1 (fromJson .Values.experiment) | int }}
{{- end -}}

{{/* Ranks that share a model: the stages of a pipeline, which send to each other within a step. */}}
{{- define "fedtrain.stages" -}}
{{ dig "parallel" "pipeline" 1 (fromJson .Values.experiment) | int }}
{{- end -}}

{{/* Where Kubernetes ends the run if the trainer, whose deadline it is, has not; nothing without a deadline. */}}
{{- define "fedtrain.hardDeadline" -}}
{{- with .Values.deadlineSeconds | int64 -}}
{{ add . $.Values.gracePeriodSeconds }}
{{- end -}}
{{- end -}}

{{/* Restarts as Kubernetes counts them: one of the run is one of each rank. */}}
{{- define "fedtrain.backoffLimit" -}}
{{- if eq .Values.restart.policy "Never" -}}
0
{{- else -}}
{{ mul .Values.restart.limit (include "fedtrain.ranks" . | int) }}
{{- end -}}
{{- end -}}

{{/* The main container's name, which operators insist on. */}}
{{- define "fedtrain.container" -}}
{{ get (dict "pytorchjob" "pytorch" "trainjob" "node" "job" "trainer") .Values.backend }}
{{- end -}}

{{/* The claim of a volume: (list . "runs"). */}}
{{- define "fedtrain.claim" -}}
{{- $root := index . 0 -}}
{{- $volume := get $root.Values.storage (index . 1) -}}
{{ eq $volume.kind "claim" | ternary $volume.claim (printf "%s-%s" $root.Release.Name (index . 1)) }}
{{- end -}}

{{/* Whether a volume is a folder of each pod, empty if not: (list . "runs"). At a URL, no pod needs another's folder. */}}
{{- define "fedtrain.ephemeral" -}}
{{- $root := index . 0 -}}
{{- $which := index . 1 -}}
{{- if or (eq (get $root.Values.storage $which).kind "ephemeral") (and $root.Values.storage.url (eq $which "runs")) -}}
true
{{- end -}}
{{- end -}}

{{/* Where the run is kept, if not in a volume. */}}
{{- define "fedtrain.url" -}}
{{- with .Values.storage.url -}}
{{ trimSuffix "/" . }}/{{ $.Release.Name }}
{{- end -}}
{{- end -}}

{{/* Exit codes that no restart mends (a wrong setting, the deadline): a podFailurePolicy's rule. */}}
{{- define "fedtrain.finalExits" -}}
- action: FailJob
  onExitCodes:
    containerName: {{ include "fedtrain.container" . }}
    operator: In
    values: [2, 3]
{{- end -}}
