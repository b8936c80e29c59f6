// Package cli is the command `hotspare`: what developers and operators type, and the exit codes, JSON and
// messages that scripts rely on.
//
// It parses, calls the public API through internal/cli/client and shows answers through
// internal/cli/render. It decides nothing that the coordinator decides, keeps no state but the file of
// contexts, and imports neither coordinator nor agent: `hotspare dev` is handed in by cmd/hotspare, which
// is the only caller. Run returns the exit code; nothing here ends the process.
package cli
