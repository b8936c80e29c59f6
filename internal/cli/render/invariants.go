package render

import (
	"fmt"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// Invariants draws a row for each invariant, and one more for each further detail.
func Invariants(vs []*pb.InvariantVerdict, width int) string {
	words := map[pb.InvariantResult]string{
		pb.InvariantResult_INVARIANT_RESULT_HOLDS: "holds", pb.InvariantResult_INVARIANT_RESULT_VIOLATED: "VIOLATED",
		pb.InvariantResult_INVARIANT_RESULT_NOT_JUDGED: "not judged",
	}
	t := NewTable(3, "#", "INVARIANT", "RESULT", "WHAT WAS LOOKED AT")
	for _, v := range vs {
		number, name, result := fmt.Sprint(v.GetNumber()), v.GetName(), words[v.GetResult()]
		details := v.GetDetails()
		if len(details) == 0 {
			details = []string{""}
		}
		for _, d := range details {
			t.Row(number, name, result, d)
			number, name, result = " ", " ", " "
		}
	}
	return t.Text(width)
}
