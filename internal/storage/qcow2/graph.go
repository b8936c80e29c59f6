package qcow2

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pollInterval is how often the daemon is asked whether an export has wound down. Without a client
// in the middle of a request it takes less than a millisecond.
const pollInterval = 5 * time.Millisecond

type exportInfo struct {
	ID           string `json:"id"`
	Node         string `json:"node-name"`
	ShuttingDown bool   `json:"shutting-down"`
}

// place is one layer of a chain: a node in the daemon and its file.
type place struct {
	node string
	path string
	raw  bool
}

// places returns the chain under a volume's layer, top first, through the origin of a clone.
func (d *Driver) places(v *volume, number uint64) []place {
	var out []place
	for _, l := range v.chain(number) {
		out = append(out, place{v.node(l.Number), filepath.Join(d.folder(v.Name), l.file()), l.Raw})
	}
	if source, ok := d.volumes[v.Of]; ok && v.State == isClone {
		out = append(out, d.places(&source, v.Origin)...)
	}
	return out
}

// follow makes the daemon export what the volume's metadata says, and nothing else of it.
func (d *Driver) follow(ctx context.Context, q *qmp, v *volume) error {
	var exports []exportInfo
	if err := q.call("query-block-exports", nil, &exports); err != nil {
		return err
	}
	want, shown := "", ""
	if v.exported() && !v.Removing {
		want = v.exportID()
	}
	for _, e := range exports {
		switch {
		case !strings.HasPrefix(e.ID, v.tag()+"-"):
		case e.ID == want && !e.ShuttingDown && d.mayShow(v, e.Node):
			shown = e.Node
			if e.Node == v.filter() {
				shown = v.node(v.Top)
			}
		default:
			if err := d.unexport(ctx, q, e.ID); err != nil {
				return err
			}
		}
	}
	if want != "" && shown != v.node(v.Top) {
		if err := d.show(q, v, shown); err != nil {
			return err
		}
	}
	return d.closeNodes(q, v)
}

// mayShow says whether an export of this node is right, or becomes right with a snapshot.
func (d *Driver) mayShow(v *volume, node string) bool {
	top := v.layer(v.Top)
	return node == v.node(top.Number) || v.Back != nil && node == v.filter() || v.State == isReplica && top.Base != 0 && node == v.node(top.Base)
}

// cut ends all exports of a volume and waits until they are gone.
func (d *Driver) cut(ctx context.Context, q *qmp, v *volume) error {
	none := *v
	none.Top = 0
	return d.follow(ctx, q, &none)
}

// unexport ends an export with its clients, whatever they are doing, and waits until it is gone.
func (d *Driver) unexport(ctx context.Context, q *qmp, id string) error {
	err := q.call("block-export-del", map[string]any{"id": id, "mode": "hard"}, nil)
	if err != nil && !refused(err) {
		return err
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		var exports []exportInfo
		if err := q.call("query-block-exports", nil, &exports); err != nil {
			return err
		}
		if !slices.ContainsFunc(exports, func(e exportInfo) bool { return e.ID == id }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of export %s: %w", id, ctx.Err())
		case <-tick.C:
		}
	}
}

// show brings the top layer to the export: by a snapshot under a running export of its base, or by a
// new export.
func (d *Driver) show(q *qmp, v *volume, shown string) error {
	chain := d.places(v, v.Top)
	if shown != "" {
		// A node of the top may be left from a call that was cut short; it stands on nothing yet.
		if err := d.closeNode(q, chain[0].node); err != nil && !refused(err) {
			return err
		}
		if err := d.addNode(q, chain[0], nil); err != nil {
			return err
		}
		return q.call("blockdev-snapshot", map[string]any{"node": shown, "overlay": chain[0].node}, nil)
	}
	if err := d.openChain(q, chain); err != nil {
		return err
	}
	return q.call("block-export-add", map[string]any{
		"type": "nbd", "id": v.exportID(), "node-name": chain[0].node, "name": v.exportName(),
		"writable": true,
		// What a mirror was told to be written must be on disk; a guest flushes by itself.
		"writethrough": v.State == isReplica,
	}, nil)
}

// openChain makes the nodes of a chain, top first. Only the top is opened for writing.
func (d *Driver) openChain(q *qmp, chain []place) error {
	// Nodes that stand alone may have been opened for another purpose: they are opened again. A node
	// that cannot be closed is part of another chain, with the same bases.
	for _, p := range chain {
		if err := d.closeNode(q, p.node); err != nil && !refused(err) {
			return err
		}
	}
	nodes, err := nodes(q)
	if err != nil {
		return err
	}
	var below *place
	for i, p := range slices.Backward(chain) {
		if !slices.Contains(nodes, p.node) {
			err = d.addBase(q, p, below, i > 0)
		}
		if err != nil {
			return err
		}
		below = &p
	}
	return nil
}

func (d *Driver) addNode(q *qmp, p place, below *place) error { return d.addBase(q, p, below, false) }

// addBase opens a layer file as a node above another one.
func (d *Driver) addBase(q *qmp, p place, below *place, readOnly bool) error {
	arguments := map[string]any{
		"node-name": p.node, "read-only": readOnly, "discard": "unmap",
		"file": map[string]any{"driver": "file", "filename": p.path, "discard": "unmap"},
	}
	switch {
	case p.raw:
		arguments["driver"] = "raw"
	case below != nil:
		arguments["driver"], arguments["backing"] = "qcow2", below.node
	default:
		// Explicitly nothing, so that the name in the file's header is not followed.
		arguments["driver"], arguments["backing"] = "qcow2", nil
	}
	return q.call("blockdev-add", arguments, nil)
}

func (d *Driver) closeNode(q *qmp, node string) error {
	return q.call("blockdev-del", map[string]any{"node-name": node}, nil)
}

// nodes lists the named nodes that the daemon has open.
func nodes(q *qmp) ([]string, error) {
	var all []struct {
		Node string `json:"node-name"`
	}
	if err := q.call("query-named-block-nodes", map[string]any{"flat": true}, &all); err != nil {
		return nil, err
	}
	out := make([]string, 0, len(all))
	for _, n := range all {
		out = append(out, n.Node)
	}
	return out, nil
}

// closeNodes closes the nodes of a volume that its export does not need. One that is busy is needed
// by a clone, unless its layer was forgotten: then something is wrong and its file must stay.
func (d *Driver) closeNodes(q *qmp, v *volume) error {
	all, err := nodes(q)
	if err != nil {
		return err
	}
	var numbers []uint64
	for _, node := range all {
		rest, ours := strings.CutPrefix(node, v.tag()+"-")
		number, err := strconv.ParseUint(rest, 36, 64)
		if ours && err == nil {
			numbers = append(numbers, number)
		}
	}
	chain := v.chain(v.Top)
	if v.Removing {
		chain = nil
	}
	// What stands on a layer has a higher number.
	slices.Sort(numbers)
	for _, number := range slices.Backward(numbers) {
		if slices.ContainsFunc(chain, func(l layer) bool { return l.Number == number }) {
			continue
		}
		err := d.closeNode(q, v.node(number))
		if err != nil && (!refused(err) || v.layer(number) == nil || v.Removing) {
			return fmt.Errorf("close layer %d of volume %s: %w", number, v.Name, err)
		}
	}
	return nil
}
