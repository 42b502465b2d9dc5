{{/*
(list BASE OVER) -> JSON {"value": BASE with OVER laid over it}. Maps by key; lists of things with a name by name, in the
base's order, new ones at the end; everything else is replaced.
*/}}
{{- define "fedtrain.overlay" -}}
{{- $base := index . 0 -}}
{{- $over := index . 1 -}}
{{- if and (kindIs "map" $base) (kindIs "map" $over) -}}
  {{- $result := deepCopy $base -}}
  {{- range $key, $value := $over -}}
    {{- if hasKey $base $key -}}
      {{- $value = (include "fedtrain.overlay" (list (get $base $key) $value) | fromJson).value -}}
    {{- end -}}
    {{- $_ := set $result $key $value -}}
  {{- end -}}
  {{- dict "value" $result | toJson -}}
{{- else if and (include "fedtrain.named" $base) (include "fedtrain.named" $over) -}}
  {{- $result := list -}}
  {{- $names := list -}}
  {{- range $item := $base -}}
    {{- $names = append $names $item.name -}}
    {{- range $other := $over -}}
      {{- if eq $other.name $item.name -}}
        {{- $item = (include "fedtrain.overlay" (list $item $other) | fromJson).value -}}
      {{- end -}}
    {{- end -}}
    {{- $result = append $result $item -}}
  {{- end -}}
  {{- range $item := $over -}}
    {{- if not (has $item.name $names) }}{{ $result = append $result $item }}{{ end -}}
  {{- end -}}
  {{- dict "value" $result | toJson -}}
{{- else -}}
  {{- dict "value" $over | toJson -}}
{{- end -}}
{{- end -}}

{{/* "yes" for a list all of whose items have a name of their own. A mount's name is its volume's, of which there may be several. */}}
{{- define "fedtrain.named" -}}
{{- $named := kindIs "slice" . -}}
{{- if $named -}}
{{- range . -}}
{{- if not (and (kindIs "map" .) (hasKey . "name") (not (hasKey . "mountPath"))) }}{{ $named = false }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $named -}}yes{{- end -}}
{{- end -}}

{{/* Fails if an overlay is not laid out as a pod template is: what is in the wrong place would be dropped, or break the template. */}}
{{- define "fedtrain.overlayIsOfAPod" -}}
{{- range $key, $value := . -}}
{{- if not (has $key (list "metadata" "spec")) -}}
{{- fail (printf "podOverlay.%s: a pod template has only metadata and spec; what is about its pods goes below podOverlay.spec" $key) -}}
{{- end -}}
{{- if not (kindIs "map" $value) -}}
{{- fail (printf "podOverlay.%s: is not a map; write %s: {NAME: VALUE}" $key $key) -}}
{{- end -}}
{{- end -}}
{{- $spec := .spec | default dict -}}
{{- if hasKey $spec "template" -}}
{{- fail "podOverlay.spec.template: the overlay is of the pod template itself; move what is in it up to podOverlay" -}}
{{- end -}}
{{- range $key := list "containers" "initContainers" "volumes" -}}
{{- include "fedtrain.isNamed" (list (printf "podOverlay.spec.%s" $key) $spec $key) -}}
{{- end -}}
{{- range $kind := list "containers" "initContainers" -}}
{{- range $container := get $spec $kind | default list -}}
{{- include "fedtrain.isNamed" (list (printf "podOverlay.spec.%s.%s.env" $kind $container.name) $container "env") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* (list PATH OWNER KEY): fails unless the key's value, if there is one, is a list of things with a name. */}}
{{- define "fedtrain.isNamed" -}}
{{- if hasKey (index . 1) (index . 2) -}}
{{- $value := get (index . 1) (index . 2) -}}
{{- $named := kindIs "slice" $value -}}
{{- if $named -}}
{{- range $item := $value -}}
{{- if not (and (kindIs "map" $item) (hasKey (kindIs "map" $item | ternary $item dict) "name")) }}{{ $named = false }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if not $named -}}
{{- fail (printf "%s: write a list, each item with its name: [{name: NAME, ...}]" (index . 0)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
