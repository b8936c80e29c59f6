package model

import (
	"fmt"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// PhaseName returns the words for a run's phase: "failing back".
func PhaseName(p pb.RunPhase) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(p.String(), "RUN_PHASE_"), "_", " "))
}

// Bytes writes a size with a binary unit: "1.5GiB".
func Bytes(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + units[i]
}
