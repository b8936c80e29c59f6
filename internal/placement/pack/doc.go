// Package pack puts items with demand in several dimensions into bins: into the bins that exist, or
// into as few as possible. It is the engine under the guarantee's full packs and knows nothing of
// hosts and workloads.
//
// It is pure: the same problem and options give the same solution, effort is bounded by counted steps,
// and the input is never changed. A solution never breaks a capacity, a permission or a spread rule;
// what finds no room is listed as unplaced, which does not prove that there is none.
//
// The proof in package placement and the tool bench/hotspare-pack call it.
package pack
