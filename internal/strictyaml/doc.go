// Package strictyaml reads YAML strictly: it turns text into a tree of nodes with their positions
// and decodes such a tree into Go structs, and it reports every fault of a file at once, with line
// and column.
//
// It refuses what makes YAML surprising: duplicate keys, anchors, aliases, merge keys, tags, keys that
// are not plain words, and nesting deeper than any file of ours. It knows nothing of hotspare's
// fields, never reads a file itself and never panics on bad input. internal/manifest, internal/config
// and the client configuration of the CLI call it.
package strictyaml
