package trust

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"syscall"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// PeerIdentity returns who makes a gRPC call: nobody without a certificate, an operator over the Unix
// socket. An error means that the caller shows something that cannot be trusted.
func PeerIdentity(ctx context.Context) (Identity, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, unauthenticated("the call has no peer")
	}
	switch info := p.AuthInfo.(type) {
	case credentials.TLSInfo:
		return IdentityOf(info.State)
	case LocalInfo:
		return info.Identity(), nil
	default:
		return Identity{}, unauthenticated("the connection is neither TLS nor the local socket")
	}
}

// LocalInfo is what the kernel says about the process at the other end of a Unix socket.
type LocalInfo struct {
	credentials.CommonAuthInfo
	UID uint32
}

// AuthType names the mechanism.
func (LocalInfo) AuthType() string { return "local" }

// Identity returns the operator that the process counts as: whoever may use the socket could as well read
// the coordinator's files.
func (i LocalInfo) Identity() Identity {
	name := "root" + localSuffix
	if i.UID != 0 {
		name = "uid-" + strconv.FormatUint(uint64(i.UID), 10) + localSuffix
	}
	return Identity{Role: RoleOperator, Name: name}
}

// Local is the server side of gRPC on a Unix socket: only processes of the users given are let in, by
// what the kernel says (SO_PEERCRED). A production coordinator gives only 0; `hotspare dev` its own user.
type Local struct {
	uids []uint32
}

var _ credentials.TransportCredentials = (*Local)(nil)

// NewLocal returns credentials for the users with these numbers.
func NewLocal(uids ...uint32) *Local { return &Local{uids: slices.Clone(uids)} }

// ServerHandshake asks the kernel who connected.
func (l *Local) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	uid, err := peerUID(conn)
	if err == nil && !slices.Contains(l.uids, uid) {
		err = unauthenticated("user %d may not use the local socket", uid)
	}
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	// Nothing leaves the machine, so the connection counts as private.
	info := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	return conn, LocalInfo{CommonAuthInfo: info, UID: uid}, nil
}

func peerUID(conn net.Conn) (uint32, error) {
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, unauthenticated("a connection of type %T is not a Unix socket", conn)
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

// ClientHandshake passes the connection on: a client trusts the socket by its path and the file's owner.
func (l *Local) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, LocalInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

// Info describes the mechanism.
func (l *Local) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "local"}
}

// Clone returns a copy.
func (l *Local) Clone() credentials.TransportCredentials { return NewLocal(l.uids...) }

// OverrideServerName does nothing: there are no names on a socket.
func (l *Local) OverrideServerName(string) error { return nil }
