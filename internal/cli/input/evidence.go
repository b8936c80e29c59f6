package input

import (
	"bufio"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/outcome"
)

// maxEvidenceLine bounds one line of an export; a reason is the only long field.
const maxEvidenceLine = 1 << 20

// Evidence reads an export of the log of decisions: an entry on each line, at least one.
func Evidence(in io.Reader) (all []*pb.Evidence, err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxEvidenceLine)
	for n := 1; lines.Scan(); n++ {
		e := &pb.Evidence{}
		if err := protojson.Unmarshal(lines.Bytes(), e); err != nil {
			return nil, outcome.Exitf(outcome.Failed, "read the export: line %d is not an entry: %v", n, err)
		}
		all = append(all, e)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the export: %w", err)
	}
	if len(all) == 0 {
		return nil, outcome.Exitf(outcome.Failed, "the export has no entries")
	}
	return all, nil
}
