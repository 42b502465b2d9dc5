{{/*
Rules over several values, each a sentence. fedctl shows it as it is, so that who uses Helm alone reads the same.
*/}}
{{- define "fedtrain.checks" -}}
{{- $name := .Release.Name -}}
{{- $last := sub (include "fedtrain.ranks" . | int) 1 | toString -}}
{{- if not .Values.experiment -}}
{{- fail "experiment: is empty; `fedctl values PRESET` writes it" -}}
{{- end -}}
{{- if not (hasKey (fromJson .Values.experiment) "ranks") -}}
{{- fail "experiment: is not an experiment's JSON; `fedctl values PRESET` writes it" -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "name: %s begins with no letter, and services have to; choose another with --name" $name) -}}
{{- end -}}
{{- /* The longest name that is made of it: the last rank's Service, or pod with its random end. */ -}}
{{- $longest := get (dict
  "pytorchjob" (printf "%s-worker-%s" $name $last)
  "trainjob" (printf "%s-node-0-%s-xxxxx" $name $last)
  "job" (printf "%s-%s" $name $last)
) .Values.backend -}}
{{- if gt (len $longest) 63 -}}
{{- fail (printf "name: %s is too long by %d: it makes the name %s, and 63 characters are the most; choose another with --name" $name (sub (len $longest) 63) $longest) -}}
{{- end -}}
{{- if and (ne .Values.network.profile "tcp") (ne .Values.podSecurity "privileged") -}}
{{- fail (printf "network.profile: %s needs the capability IPC_LOCK%s, which Pod Security %s forbids; set podSecurity to privileged and use a namespace that allows it, or network.profile to tcp" .Values.network.profile (include "fedtrain.hostAccess" .) .Values.podSecurity) -}}
{{- end -}}
{{- if and (eq .Values.queue.kind "kueue") (not .Values.queue.name) -}}
{{- fail "queue.name: kueue needs the name of a LocalQueue" -}}
{{- end -}}
{{- range $which := list "runs" "data" -}}
{{- $volume := get $.Values.storage $which -}}
{{- if and (eq $volume.kind "claim") (not $volume.claim) -}}
{{- fail (printf "storage.%s.claim: name the claim, or set storage.%s.kind to new or ephemeral" $which $which) -}}
{{- end -}}
{{- end -}}
{{- with .Values.storage.url -}}
{{- if eq $.Values.storage.runs.kind "claim" -}}
{{- fail "storage.url: the run is kept there, and storage.runs.kind claim names a volume too; set only one of them" -}}
{{- end -}}
{{- with $.Values.networkPolicy -}}
{{- if and .enabled .restrictEgress (not .egressTo) -}}
{{- fail "storage.url: the pods may not connect to it; name its addresses in networkPolicy.egressTo, or set networkPolicy.restrictEgress to false" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.network.profile "aws-efa") .Values.scheduling.topology.key -}}
{{- fail "scheduling.topology.key: aws-efa brings its own (one zone); leave it empty" -}}
{{- end -}}
{{- /* As in trainer/config/secrets.py. Of the finished pod, so that an overlay's variables are among them. */ -}}
{{- $pod := include "fedtrain.pod" . | fromYaml -}}
{{- range concat ($pod.spec.initContainers | default list) $pod.spec.containers -}}
{{- range .env -}}
{{- if and .value (or (regexMatch "(?i)(api_?key|access_key|private_key|password|passwd|secret|token)$" .name) (regexMatch "://[^\\s/?#@:]*:[^\\s/?#]+@" (toString .value))) -}}
{{- fail (printf "env.%s: holds a secret, which everyone who can read the pods would see; put it into a Secret, and name that in envFromSecrets" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
