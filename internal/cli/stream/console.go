package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Console shows a console, to its end or for as long as it is followed. The request's offset moves on.
func Console(ctx context.Context, site Site, r *pb.ReadConsoleRequest, o Options) error {
	c := &console{Options: o}
	return keep(ctx, site, o.Patience, func(ctx context.Context) (bool, error) {
		got, err := c.stream(ctx, site, r)
		if errors.Is(err, io.EOF) && !r.GetFollow() {
			return got, nil
		}
		return got, err
	})
}

type console struct {
	Options
	clean filter
	begun bool
}

func (c *console) stream(ctx context.Context, site Site, r *pb.ReadConsoleRequest) (got bool, err error) {
	s, err := pb.NewLeaseServiceClient(site).ReadConsole(ctx, r)
	if err != nil {
		return false, err
	}
	for {
		m, err := s.Recv()
		if err != nil {
			return got, err
		}
		got, r.After = true, m.GetEnd()
		c.remark(m)
		text := m.GetText()
		if c.Terminal {
			text = c.clean.harmless(text)
		}
		if _, err := c.Out.Write(text); err != nil {
			return got, fmt.Errorf("write the output: %w", err)
		}
	}
}

// remark says once what the text alone does not.
func (c *console) remark(m *pb.ReadConsoleResponse) {
	if c.begun {
		return
	}
	c.begun = true
	state := m.GetState()
	switch {
	case state != pb.State_STATE_RUNNING && state != pb.State_STATE_UNSPECIFIED:
		c.Say("the VM is %s; this is what it last wrote", strings.ToLower(model.StateName(state)))
	case len(m.GetText()) == 0:
		c.Say("nothing was written to the console yet")
	}
}
