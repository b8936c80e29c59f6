package stream

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hotspare/hotspare/internal/cli/client"
)

// retryPause is the time before a broken stream is opened again.
const retryPause = 500 * time.Millisecond

// Site is where streams are opened; Next turns to another coordinator.
type Site interface {
	grpc.ClientConnInterface
	Next()
}

// Options say where things are shown.
type Options struct {
	Out io.Writer
	// Say writes a remark for people beside the output.
	Say func(format string, args ...any)
	// Terminal: Out is one.
	Terminal bool
	// Patience is how long no coordinator may answer.
	Patience time.Duration
	Now      func() time.Time
}

// keep opens a stream until it ends in good order or with an error that another coordinator does not mend. The
// function says whether the stream brought anything; io.EOF from it means that another one is wanted.
func keep(ctx context.Context, site Site, patience time.Duration, open func(context.Context) (bool, error)) error {
	for lost := (time.Time{}); ; {
		got, err := open(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !again(err) {
			return err
		}
		now := time.Now()
		if got || lost.IsZero() {
			lost = now
		}
		if now.Sub(lost) > patience {
			return &client.NoAnswerError{Endpoints: []string{"every coordinator"}, Waited: now.Sub(lost), Last: err}
		}
		site.Next()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryPause):
		}
	}
}

// again says whether another stream may help: the leader went away, or ended this one in good order.
func again(err error) bool {
	code := status.Code(err)
	return err != nil && (errors.Is(err, io.EOF) || code == codes.Unavailable || code == codes.DeadlineExceeded)
}
