// Package metrics shows the manager to Prometheus.
//
// # Theory of operation
//
// What happens is counted where it happens (Metrics.Observer); what is, is asked for at a scrape (snapshot). Between scrapes
// nothing runs, and before the first one there is no registry.
//
// Labels are bounded by the configuration (pools), by the hardware (GPUs), or by us (states, causes): nothing that a message says
// becomes one. A scrape costs the host next to nothing: it starts no GPU helper and no keeper, and asks a broker at most once in
// depthAge.
package metrics
