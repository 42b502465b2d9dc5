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
{{- range $key := list "env" "podOverlay" -}}
{{- include "fedtrain.noSecrets" (list $key (get $.Values $key)) -}}
{{- end -}}
{{- end -}}

{{/*
(list PATH VALUE): fails if a secret is in VALUE, at any depth. As a pod's variables are a list of names and values, an item of a
list is called by its name in the path.
*/}}
{{- define "fedtrain.noSecrets" -}}
{{- $path := index . 0 -}}
{{- $node := index . 1 -}}
{{- if kindIs "map" $node -}}
  {{- include "fedtrain.noSecret" (list $path (get $node "name") (get $node "value")) -}}
  {{- range $key, $value := $node -}}
    {{- include "fedtrain.noSecret" (list (printf "%s.%s" $path $key) $key $value) -}}
    {{- include "fedtrain.noSecrets" (list (printf "%s.%s" $path $key) $value) -}}
  {{- end -}}
{{- else if kindIs "slice" $node -}}
  {{- range $at, $item := $node -}}
    {{- $step := toString $at -}}
    {{- if kindIs "map" $item }}{{ $step = get $item "name" | default $at | toString }}{{ end -}}
    {{- include "fedtrain.noSecret" (list (printf "%s.%s" $path $step) "" $item) -}}
    {{- include "fedtrain.noSecrets" (list (printf "%s.%s" $path $step) $item) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* (list PATH NAME VALUE): fails if VALUE is text or a number, and by its name or itself a secret, as in trainer/config/secrets.py. */}}
{{- define "fedtrain.noSecret" -}}
{{- $name := index . 1 | toString -}}
{{- $value := index . 2 -}}
{{- if and $value (not (has (kindOf $value) (list "map" "slice" "bool"))) -}}
{{- $named := regexMatch "(?i)(api[_-]?key|(access|account|private)[_-]?key|password|passwd|secret|token)$" $name -}}
{{- $login := regexMatch "(?i)://[^\\s/?#@:]*:[^\\s/?#]+@|\\bhttps?://[^\\s/?#]+@" (toString $value) -}}
{{- $parameter := regexMatch "(?i)://.*[?&;]([a-z_-]*(api[_-]?key|password|passwd|pwd|secret|signature|token)|sig)=[^\\s&;#'\"]" (toString $value) -}}
{{- if or $named $login $parameter -}}
{{- fail (printf "%s: holds a secret, which everyone who can read the pods would see; put it into a Secret, and name that in envFromSecrets" (index . 0)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
