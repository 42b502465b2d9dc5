{{/* The pod template of every backend: a rank. The overlay is laid over it before the container gets its name. */}}
{{- define "fedtrain.pod" -}}
{{- $pod := include "fedtrain.basePod" . | fromYaml -}}
{{- if .Values.podOverlay -}}
{{- include "fedtrain.overlayIsOfAPod" .Values.podOverlay -}}
{{- $pod = (include "fedtrain.overlay" (list $pod .Values.podOverlay) | fromJson).value -}}
{{- end -}}
{{- range $pod.spec.containers -}}
{{- if eq .name "trainer" }}{{ $_ := set . "name" (include "fedtrain.container" $) }}{{ end -}}
{{- end -}}
{{- toYaml $pod -}}
{{- end -}}

{{- define "fedtrain.basePod" -}}
{{- $profile := include "fedtrain.profile" . | fromJson -}}
metadata:
  labels:
    {{- include "fedtrain.podLabels" . | nindent 4 }}
  annotations:
    checksum/experiment: {{ sha256sum .Values.experiment }}
    {{- include "fedtrain.queueAnnotations" . | nindent 4 }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.serviceAccount }}
  serviceAccountName: {{ . | quote }}
  {{- end }}
  restartPolicy: {{ eq .Values.backend "pytorchjob" | ternary .Values.restart.policy "Never" }}
  terminationGracePeriodSeconds: {{ .Values.gracePeriodSeconds | int64 }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  {{- if $profile.host }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  {{- if eq .Values.backend "job" }}
  subdomain: {{ .Release.Name }}
  {{- end }}
  {{- include "fedtrain.placement" . | nindent 2 }}
  securityContext:
    runAsNonRoot: true
    {{- with .Values.runAsUser }}
    runAsUser: {{ . | int64 }}
    runAsGroup: {{ . | int64 }}
    fsGroup: {{ . | int64 }}
    fsGroupChangePolicy: OnRootMismatch
    {{- end }}
    seccompProfile: {type: RuntimeDefault}
  containers:
    - {{- include "fedtrain.trainer" (list . $profile) | nindent 6 }}
  volumes:
    - name: experiment
      configMap: {name: {{ .Release.Name }}-experiment}
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ .Values.resources.sharedMemoryMiB | int64 }}Mi}
    - name: tmp
      emptyDir: {}
    {{- range $which := list "runs" "data" }}
    - name: {{ $which }}
      {{- if include "fedtrain.ephemeral" (list $ $which) }}
      emptyDir: {}
      {{- else }}
      persistentVolumeClaim: {claimName: {{ include "fedtrain.claim" (list $ $which) | quote }}}
      {{- end }}
    {{- end }}
    {{- if $profile.host }}
    - name: infiniband
      hostPath: {path: /dev/infiniband}
    {{- end }}
{{- end -}}

{{- define "fedtrain.trainer" -}}
{{- $profile := index . 1 -}}
{{- with index . 0 -}}
name: trainer
image: {{ .Values.image.reference | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- /* No command: the image's entrypoint is the trainer under an init, which passes SIGTERM on from the first moment. */}}
args: [/etc/fedctl/experiment.json, --out, /runs/{{ .Release.Name }}, --resume=auto]
workingDir: /tmp
env:
  {{- include "fedtrain.env" . | nindent 2 }}
{{- if or .Values.envFromSecrets .Values.storage.objectStoreSecret }}
envFrom:
  {{- range compact (append .Values.envFromSecrets .Values.storage.objectStoreSecret) }}
  - secretRef: {name: {{ . | quote }}}
  {{- end }}
{{- end }}
ports:
  {{- if ne .Values.backend "trainjob" }}
  - {name: {{ eq .Values.backend "pytorchjob" | ternary "pytorchjob-port" "rendezvous" }}, containerPort: {{ .Values.rendezvousPort | int64 }}}
  {{- end }}
  - {name: metrics, containerPort: {{ .Values.metricsPort | int64 }}}
resources:
  {{- /* The kernel counts what is in /dev/shm as the process's memory. */ -}}
  {{- $memory := printf "%dMi" (add .Values.resources.memoryMiB .Values.resources.sharedMemoryMiB) }}
  requests:
    cpu: {{ .Values.resources.cpus | toString | quote }}
    memory: {{ $memory }}
  limits:
    memory: {{ $memory }}
    {{- with .Values.resources }}
    {{- if .gpus }}
    {{ .gpuResource }}: {{ .gpus }}
    {{- end }}
    {{- end }}
    {{- with .Values.network.rdmaResource | default $profile.resource }}
    {{ . }}: 1
    {{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    {{- if ne .Values.network.profile "tcp" }}
    add: [IPC_LOCK]
    {{- end }}
terminationMessagePath: /dev/termination-log
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - {name: experiment, mountPath: /etc/fedctl, readOnly: true}
  - {name: shm, mountPath: /dev/shm}
  - {name: tmp, mountPath: /tmp}
  - {name: runs, mountPath: /runs}
  - {name: data, mountPath: /data}
  {{- if $profile.host }}
  - {name: infiniband, mountPath: /dev/infiniband}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* What the trainer reads of its place; docs/kubernetes.md explains each FEDCTL_ variable. */}}
{{- define "fedtrain.env" -}}
{{- $env := dict
  "FEDCTL_DIGEST" (include "fedtrain.digest" .)
  "FEDCTL_METRICS_HOST" "0.0.0.0"
  "FEDCTL_METRICS_PORT" (.Values.metricsPort | int64 | toString)
  "FEDCTL_RENDEZVOUS_SECONDS" (.Values.rendezvousSeconds | int64 | toString)
  "HOME" "/tmp"
  "PYTHONUNBUFFERED" "1"
  "USER" "fedctl"
  "XDG_CACHE_HOME" "/data"
-}}
{{- with .Values.deadlineSeconds | int64 }}{{ $_ := set $env "FEDCTL_DEADLINE_SECONDS" (toString .) }}{{ end -}}
{{- with include "fedtrain.url" . }}{{ $_ := set $env "FEDCTL_RUN_URL" . }}{{ end -}}
{{- with .Values.storage.endpoint }}{{ $_ := set $env "AWS_ENDPOINT_URL" . }}{{ end -}}
{{- with .Values.storage.region }}{{ $_ := set $env "AWS_REGION" . }}{{ end -}}
{{- $env = merge (include "fedtrain.networkEnv" . | fromYaml) $env -}}
{{- /* Trainer v2 says the rest itself, and refuses to be told. */ -}}
{{- if ne .Values.backend "trainjob" -}}
{{- $_ := set $env "WORLD_SIZE" (include "fedtrain.ranks" .) -}}
{{- $_ := set $env "MASTER_PORT" (.Values.rendezvousPort | int64 | toString) -}}
{{- $_ := set $env "MASTER_ADDR" (eq .Values.backend "job" | ternary
  (printf "%s-0.%s" .Release.Name .Release.Name) (printf "%s-worker-0" .Release.Name)) -}}
{{- end -}}
{{- $env = merge (deepCopy .Values.env) $env -}}
{{- if and (eq .Values.backend "pytorchjob") (not (hasKey $env "RANK")) }}
- name: RANK
  valueFrom: {fieldRef: {fieldPath: "metadata.labels['training.kubeflow.org/replica-index']"}}
{{- end }}
{{- range $name, $value := $env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{/* Which nodes, by whom, before whom. */}}
{{- define "fedtrain.placement" -}}
{{- $scheduler := .Values.scheduling.schedulerName | default (eq .Values.queue.kind "volcano" | ternary "volcano" "") -}}
{{- with $scheduler }}
schedulerName: {{ . | quote }}
{{- end }}
{{- with .Values.scheduling.priorityClass }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.scheduling.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "fedtrain.affinity" . }}
affinity:
  {{- . | nindent 2 }}
{{- end }}
{{- if eq .Values.queue.kind "native" }}
schedulingGroup: {podGroupName: {{ .Release.Name }}}
{{- end }}
{{- end -}}

{{/* What a queue reads on the pods. */}}
{{- define "fedtrain.queueAnnotations" -}}
{{- with .Values.scheduling.topology -}}
{{- if and .key (eq $.Values.queue.kind "kueue") }}
{{- if and (eq $.Values.backend "pytorchjob") (gt (include "fedtrain.ranks" $ | int) 1) }}
{{- /* A PyTorchJob's master and workers are two sets of pods, each of which Kueue would place by itself. */}}
kueue.x-k8s.io/podset-group-name: ranks
{{- end }}
{{- $stages := include "fedtrain.stages" $ | int }}
{{- /* Kueue numbers the pods of one set: a PyTorchJob has two, so its ranks cannot be told apart by S. */}}
{{- if and .required (gt $stages 1) (ne $.Values.backend "pytorchjob") }}
kueue.x-k8s.io/podset-preferred-topology: {{ .key | quote }}
kueue.x-k8s.io/podset-slice-required-topology: {{ .key | quote }}
kueue.x-k8s.io/podset-slice-size: {{ $stages | quote }}
{{- else }}
kueue.x-k8s.io/podset-{{ .required | ternary "required" "preferred" }}-topology: {{ .key | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq .Values.queue.kind "volcano") (eq .Values.backend "job") }}
scheduling.k8s.io/group-name: {{ .Release.Name }}
{{- end }}
{{- end -}}
