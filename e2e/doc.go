// Package e2e holds the end-to-end tests: the real daemons with real VMs, storage, networks, DNS and
// monitoring on one machine, each host in namespaces of its own. It decides nothing and is imported by
// nobody; what happened is counted by somebody else (package lab).
package e2e
