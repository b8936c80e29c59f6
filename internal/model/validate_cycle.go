package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

func workloadNames(ws []*pb.Workload) []string {
	var out []string
	for _, w := range ws {
		out = append(out, w.GetName())
	}
	return out
}

// known checks references to workloads of the same plan.
func (c *checker) known(path string, refs, names []string) {
	for i, ref := range refs {
		if !slices.Contains(names, ref) {
			c.add(fmt.Sprintf("%s[%d]", path, i), "no workload %q in this plan%s", ref, nearest(ref, names))
		}
	}
}

// nearest words a suggestion for a name that does not exist.
func nearest(word string, valid []string) string {
	if best := Nearest(word, valid); best != "" {
		return fmt.Sprintf(", did you mean %q?", best)
	}
	return ": it has " + strings.Join(valid, ", ")
}

// dependencies checks the names in dependsOn and that following them never leads back. A name with a
// slash is another plan's workload; whether that exists, and cycles across plans, is PlanCycle's.
func (c *checker) dependencies(plan string, ws []*pb.Workload) {
	names := workloadNames(ws)
	faults := len(c.faults)
	for i, w := range ws {
		for j, dep := range w.GetDependsOn() {
			path := fmt.Sprintf("spec.workloads[%d].dependsOn[%d]", i, j)
			other, workload, cross := strings.Cut(dep, "/")
			switch {
			case cross && other == plan && !slices.Contains(names, workload):
				c.add(path, "no workload %q in this plan%s", workload, nearest(workload, names))
			case cross && (!ValidName(other) || !ValidName(workload)):
				c.add(path, "%q is not a workload, for example db, or billing/db of another plan", dep)
			case !cross && !slices.Contains(names, dep):
				c.add(path, "no workload %q in this plan%s", dep, nearest(dep, names))
			}
			if slices.Contains(w.GetDependsOn()[:j], dep) {
				c.add(path, "%q is listed twice", dep)
			}
		}
	}
	if len(c.faults) > faults {
		return
	}
	edges := map[string][]string{}
	planEdges(edges, plan, ws)
	if cycle := FindCycle(edges); cycle != nil {
		for i := range cycle {
			cycle[i] = strings.TrimPrefix(cycle[i], plan+"/")
		}
		at := slices.Index(names, cycle[0])
		c.add(fmt.Sprintf("spec.workloads[%d].dependsOn", at), "workloads wait for each other: %s", strings.Join(cycle, " -> "))
	}
}

func planEdges(edges map[string][]string, plan string, ws []*pb.Workload) {
	for _, w := range ws {
		from := plan + "/" + w.GetName()
		for _, dep := range w.GetDependsOn() {
			if !strings.Contains(dep, "/") {
				dep = plan + "/" + dep
			}
			edges[from] = append(edges[from], dep)
		}
	}
}

// PlanCycle looks for workloads of several plans that wait for each other. It returns the cycle with
// its first member repeated at the end ("shop/web", "billing/db", "shop/web"), or nil.
func PlanCycle(plans []*pb.Plan) []string {
	edges := map[string][]string{}
	for _, p := range plans {
		planEdges(edges, p.GetMetadata().GetName(), p.GetSpec().GetWorkloads())
	}
	return FindCycle(edges)
}

// FindCycle returns one cycle of a graph, with its first member repeated at the end, or nil. It is the
// same cycle for the same graph: nodes are tried in the order of their names. It does not recurse.
func FindCycle(edges map[string][]string) []string {
	const fresh, open, done = 0, 1, 2
	nodes := slices.Sorted(maps.Keys(edges))
	mark := map[string]int{}
	next := map[string]int{} // how many edges of a node were followed
	for _, start := range nodes {
		if mark[start] != fresh {
			continue
		}
		path := []string{start}
		mark[start] = open
		for len(path) > 0 {
			n := path[len(path)-1]
			if next[n] == len(edges[n]) {
				mark[n] = done
				path = path[:len(path)-1]
				continue
			}
			to := edges[n][next[n]]
			next[n]++
			switch mark[to] {
			case open:
				return append(slices.Clone(path[slices.Index(path, to):]), to)
			case fresh:
				mark[to] = open
				path = append(path, to)
			}
		}
	}
	return nil
}
