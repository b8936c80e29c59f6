// Package config reads the configuration of the two daemons: one strict YAML file, overlaid by HOTSPARE_…
// variables, checked completely before anything starts.
//
// It reports every fault of a file at once, with line and column, and fills in defaults, so that the
// caller trusts what it gets. It reads files but never opens a socket or starts anything. Secrets are
// named by file and never stand in the configuration or the environment. cmd/coordinator and cmd/agent
// call it, also for --validate.
package config
