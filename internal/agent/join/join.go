// Package join turns a one-time token into an agent's identity: it makes a key, has it signed by the
// site's own authority, and writes both to one file. It trusts only a coordinator whose certificate
// ends in the authority that the token names. cmd/agent calls it before the first start.
package join

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/trust"
	"github.com/hotspare/hotspare/internal/trust/token"
)

// Options are what an agent needs to join.
type Options struct {
	// Name of the host; the token must be for this one.
	Name string
	// Token as `hotspare agent token create` printed it.
	Token string
	// Coordinators are tried in turn.
	Coordinators []string
	// Path of the file that will hold the identity.
	Path string
	Now  func() time.Time
	// Dial adds options to the connection; tests use it for in-memory networks.
	Dial []grpc.DialOption
}

// tryTimeout bounds the attempt at one coordinator.
const tryTimeout = 10 * time.Second

// Join enrols the agent and saves its identity. Nothing is written unless all of it worked.
func Join(ctx context.Context, o Options) error {
	t, err := token.Parse(o.Token)
	if err != nil {
		return err
	}
	// The token is spent by the answer: whether the identity can be kept is found out before.
	if err := prepare(o.Path); err != nil {
		return err
	}
	key, err := trust.NewKey()
	if err != nil {
		return err
	}
	csr, err := trust.NewRequest(key)
	if err != nil {
		return err
	}
	req := &pb.EnrollRequest{Agent: o.Name, Token: t.Text(), Csr: csr}
	creds := credentials.NewTLS(trust.EnrollTLS(t, o.Now))
	var all []error
	for _, address := range o.Coordinators {
		resp, err := enroll(ctx, address, append([]grpc.DialOption{grpc.WithTransportCredentials(creds)}, o.Dial...), req)
		if err == nil {
			return trust.SaveIdentity(o.Path, key, resp.GetCertificate(), resp.GetAuthority())
		}
		all = append(all, fmt.Errorf("join as %s through %s: %w", o.Name, address, err))
	}
	return errors.Join(all...)
}

// prepare makes the folder of the identity and tries to write there.
func prepare(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	probe := path + ".probe"
	if err := trust.WriteFile(probe, nil); err != nil {
		return fmt.Errorf("the identity cannot be kept: %w", err)
	}
	return os.Remove(probe)
}

func enroll(ctx context.Context, address string, options []grpc.DialOption, req *pb.EnrollRequest) (*pb.EnrollResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	conn, err := grpc.NewClient(address, options...)
	if err != nil {
		return nil, err
	}
	resp, err := pb.NewAgentServiceClient(conn).Enroll(ctx, req, grpc.WaitForReady(true))
	return resp, errors.Join(err, conn.Close())
}

// Renew returns the call that gives an agent its next certificate, made with its present one.
func Renew(coordinators []string, dial []grpc.DialOption) func(ctx context.Context, csr []byte) (cert, authority []byte, err error) {
	return func(ctx context.Context, csr []byte) ([]byte, []byte, error) {
		var all []error
		for _, address := range coordinators {
			resp, err := renew(ctx, address, dial, csr)
			if err == nil {
				return resp.GetCertificate(), resp.GetAuthority(), nil
			}
			all = append(all, fmt.Errorf("renew the certificate through %s: %w", address, err))
		}
		return nil, nil, errors.Join(all...)
	}
}

func renew(ctx context.Context, address string, dial []grpc.DialOption, csr []byte) (*pb.RenewResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	conn, err := grpc.NewClient(address, dial...)
	if err != nil {
		return nil, err
	}
	resp, err := pb.NewAgentServiceClient(conn).Renew(ctx, &pb.RenewRequest{Csr: csr}, grpc.WaitForReady(true))
	return resp, errors.Join(err, conn.Close())
}
