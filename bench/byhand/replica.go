package byhand

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// windDown is how often the daemon is asked whether an export has ended; it takes less than a millisecond.
const windDown = time.Millisecond

// Replica is a layer that a storage daemon exports to a mirror, and what becomes of it.
type Replica struct {
	// Socket is the daemon's monitor.
	Socket string
	// Export and Node are the daemon's names of what the mirror writes to, File is the layer.
	Export, Node, File string
	// Name is what the promoted layer is exported as.
	Name string
}

const (
	promotedExport = "byhand-export"
	promotedNode   = "byhand-node"
)

// overlay is the promoted layer's file.
func (r Replica) overlay() string { return filepath.Join(filepath.Dir(r.File), "byhand.qcow2") }

// export and node are what the daemon lists.
type export struct {
	ID   string `json:"id"`
	Node string `json:"node-name"`
}

type node struct {
	Name string `json:"node-name"`
	File string `json:"file"`
}

// FindReplica asks the daemon for the only export whose name begins with the volume's.
func FindReplica(ctx context.Context, socket, volume string) (Replica, error) {
	r := Replica{Socket: socket, Name: volume}
	err := withMonitor(ctx, socket, func(m *monitor) error {
		var exports []export
		var nodes []node
		if err := errors.Join(m.ask("query-block-exports", nil, &exports),
			m.ask("query-named-block-nodes", map[string]any{"flat": true}, &nodes)); err != nil {
			return err
		}
		for _, e := range exports {
			i := slices.IndexFunc(nodes, func(n node) bool { return n.Name == e.Node && strings.Contains(n.File, "/"+volume+"/") })
			if i < 0 {
				continue
			}
			if r.Export != "" {
				return fmt.Errorf("more than one export of volume %s", volume)
			}
			r.Export, r.Node, r.File = e.ID, e.Node, nodes[i].File
		}
		if r.Export == "" {
			return fmt.Errorf("no export of volume %s", volume)
		}
		return nil
	})
	return r, err
}

// promote cuts the mirror off and exports an empty layer above its own, the same that hotspare makes.
func (r Replica) promote(ctx context.Context) error {
	return withMonitor(ctx, r.Socket, func(m *monitor) error {
		if err := m.unexport(ctx, r.Export); err != nil {
			return err
		}
		// As the driver does: a process of qemu-img, and the file is durable before it is used.
		out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-b", r.File, "-F", "qcow2", r.overlay()).CombinedOutput()
		if err != nil {
			return fmt.Errorf("make the layer: %w: %s", err, out)
		}
		if err := errors.Join(syncPath(r.overlay()), syncPath(filepath.Dir(r.overlay()))); err != nil {
			return err
		}
		file := func(path string) map[string]any {
			return map[string]any{"driver": "file", "filename": path, "discard": "unmap"}
		}
		return errors.Join(
			m.ask("blockdev-del", map[string]any{"node-name": r.Node}, nil),
			m.ask("blockdev-add", map[string]any{
				"driver": "qcow2", "node-name": r.Node, "read-only": true, "discard": "unmap", "backing": nil, "file": file(r.File),
			}, nil),
			m.ask("blockdev-add", map[string]any{
				"driver": "qcow2", "node-name": promotedNode, "read-only": false, "discard": "unmap", "backing": r.Node, "file": file(r.overlay()),
			}, nil),
			m.ask("block-export-add", map[string]any{
				"type": "nbd", "id": promotedExport, "node-name": promotedNode, "name": r.Name, "writable": true,
			}, nil),
		)
	})
}

// demote removes the promoted layer and closes the replica's; whoever keeps the replica exports it again.
func (r Replica) demote(ctx context.Context) error {
	err := withMonitor(ctx, r.Socket, func(m *monitor) error {
		if err := m.unexport(ctx, promotedExport); err != nil {
			return err
		}
		for _, name := range []string{promotedNode, r.Node} {
			// Refused: it is not open, or in use by the mirror's export, which was not cut then.
			if err := m.ask("blockdev-del", map[string]any{"node-name": name}, nil); err != nil && !isRefusal(err) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("demote: %w", err)
	}
	if err := os.Remove(r.overlay()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// monitor is a connection to the daemon's QMP monitor.
type monitor struct {
	out *json.Encoder
	in  *json.Decoder
}

// refusal is an error that the daemon answered with.
type refusal struct {
	Desc string `json:"desc"`
}

func (r *refusal) Error() string { return r.Desc }

func isRefusal(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}

// withMonitor connects, negotiates and calls do. The daemon serves one client at a time.
func withMonitor(ctx context.Context, socket string, do func(*monitor) error) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("connect to the storage daemon: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	m := &monitor{json.NewEncoder(conn), json.NewDecoder(conn)}
	var greeting map[string]any
	if err := m.in.Decode(&greeting); err != nil {
		return fmt.Errorf("wait for the storage daemon's greeting: %w", err)
	}
	if err := m.ask("qmp_capabilities", nil, nil); err != nil {
		return err
	}
	return do(m)
}

// ask runs one command; events in between are skipped.
func (m *monitor) ask(command string, arguments, answer any) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := m.out.Encode(request); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	for {
		var reply struct {
			Return json.RawMessage `json:"return"`
			Error  *refusal        `json:"error"`
			Event  string          `json:"event"`
		}
		if err := m.in.Decode(&reply); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		switch {
		case reply.Event != "":
		case reply.Error != nil:
			return fmt.Errorf("%s: %w", command, reply.Error)
		case answer == nil:
			return nil
		default:
			return json.Unmarshal(reply.Return, answer)
		}
	}
}

// unexport ends an export and waits until it is gone; one that is not there is fine.
func (m *monitor) unexport(ctx context.Context, id string) error {
	err := m.ask("block-export-del", map[string]any{"id": id, "mode": "hard"}, nil)
	if isRefusal(err) {
		return nil
	}
	for err == nil {
		var exports []export
		if err = m.ask("query-block-exports", nil, &exports); err != nil {
			break
		}
		if !slices.ContainsFunc(exports, func(e export) bool { return e.ID == id }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(windDown):
		}
	}
	return err
}
