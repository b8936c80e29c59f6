package qcow2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// maxReply bounds one message of the daemon: the list of nodes of a big pool has some 500 bytes each.
const maxReply = 16 << 20

// qmp is one connection to the daemon's monitor. It serves one call at a time and lives no longer
// than the context it was opened with. The daemon talks to one client only, so connections are short.
type qmp struct {
	conn   net.Conn
	lines  *json.Decoder
	ctx    func() error
	detach func() bool
	// broken is set when the connection can serve no further call.
	broken bool
}

// qmpError is a refusal by the daemon. Any other error of a call means that its outcome is unknown.
type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return e.Desc }

// dialQMP connects and negotiates. A daemon that hangs accepts the connection and never greets.
func dialQMP(ctx context.Context, socket string) (*qmp, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	q := &qmp{conn: conn, lines: json.NewDecoder(io.LimitReader(conn, maxReply)), ctx: ctx.Err}
	// A deadline in the past wakes up whoever waits for an answer when the context ends.
	q.detach = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = q.greeted()
	if err == nil {
		err = q.call("qmp_capabilities", nil, nil)
	}
	if err != nil {
		q.close()
		return nil, err
	}
	return q, nil
}

// greeted reads the greeting, which events may precede.
func (q *qmp) greeted() error {
	for {
		var message struct {
			QMP   *json.RawMessage
			Event string `json:"event"`
		}
		if err := q.lines.Decode(&message); err != nil {
			return fmt.Errorf("wait for the storage daemon's greeting: %w", q.cause(err))
		}
		switch {
		case message.QMP != nil:
			return nil
		case message.Event == "":
			return errors.New("what listens on the storage daemon's socket is no QMP monitor")
		}
	}
}

func (q *qmp) close() {
	q.detach()
	_ = q.conn.Close()
}

// cause prefers the context's error to that of the connection which it broke.
func (q *qmp) cause(err error) error {
	q.broken = true
	if ctxErr := q.ctx(); ctxErr != nil {
		return ctxErr
	}
	return err
}

// call runs one command and decodes its result into out, if out is not nil. Events are skipped.
func (q *qmp) call(command string, arguments, out any) error {
	request := struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments}
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return fmt.Errorf("send %s to the storage daemon: %w", command, q.cause(err))
	}
	for {
		var reply struct {
			Event  string          `json:"event"`
			Return json.RawMessage `json:"return"`
			Error  *qmpError       `json:"error"`
		}
		if err := q.lines.Decode(&reply); err != nil {
			return fmt.Errorf("wait for the storage daemon's answer to %s: %w", command, q.cause(err))
		}
		switch {
		case reply.Event != "":
			continue
		case reply.Error != nil:
			return fmt.Errorf("%s: %w", command, reply.Error)
		case out == nil:
			return nil
		}
		if err := json.Unmarshal(reply.Return, out); err != nil {
			return fmt.Errorf("read the storage daemon's answer to %s: %w", command, err)
		}
		return nil
	}
}

// refused says whether the daemon answered and declined.
func refused(err error) bool {
	var e *qmpError
	return errors.As(err, &e)
}
