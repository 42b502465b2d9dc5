// Package monitoring keeps `go mod tidy` from dropping a module of which only files are wanted: Prometheus Operator, whose
// definitions of PodMonitor and PrometheusRule are YAML beside its code. What is imported is its smallest package.
package monitoring

import _ "github.com/prometheus-operator/prometheus-operator/pkg/versionutil"
