// Package manifest reads and writes the YAML manifests in which operators declare resources.
//
// Decode is strict: an unknown or misspelt field, a duplicate key, a wrong unit or a value that
// internal/model refuses is reported with file, line and column, all faults of one call at once. Field
// names follow from the proto: lowerCamelCase, sizes without "Bytes" and with a unit ("memory: 32GiB"),
// durations as "90s", enumerations as lower-case words. What the server fills in is not part of a
// manifest.
//
// The package does no I/O: the CLI and, on the server, whatever follows a Git repository hand it bytes.
// It never decides whether something fits or exists; that is the coordinator's.
package manifest
