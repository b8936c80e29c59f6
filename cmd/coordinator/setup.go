package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hotspare/hotspare/internal/config"
	"github.com/hotspare/hotspare/internal/trust"
)

// authorityFile holds certificate and key of the authority beside the identity of the member that
// makes the site, until the site has started.
const authorityFile = "authority.pem"

// setup writes the authority and the members' identities. It stops before it would overwrite a file.
func setup(out io.Writer, k *config.Coordinator, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	names := []string{authorityFile}
	for _, m := range k.Members {
		names = append(names, m.Name+".pem")
	}
	for _, n := range names {
		if _, err := os.Stat(filepath.Join(dir, n)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s exists: a site has one authority; choose an empty directory with --out", filepath.Join(dir, n))
		}
	}
	now := time.Now()
	authority, err := trust.NewAuthority(now)
	if err != nil {
		return err
	}
	for _, m := range k.Members {
		if err := issue(authority, m, filepath.Join(dir, m.Name+".pem"), now); err != nil {
			return fmt.Errorf("identity of %s: %w", m.Name, err)
		}
		fmt.Fprintf(out, "%s: identity_file of member %s\n", filepath.Join(dir, m.Name+".pem"), m.Name)
	}
	cert, key, err := authority.Encode()
	if err != nil {
		return err
	}
	if err := trust.WriteFile(filepath.Join(dir, authorityFile), append(cert, key...)); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: beside the identity of the member with bootstrap: true; delete it once the site runs\n",
		filepath.Join(dir, authorityFile))
	return nil
}

func issue(a *trust.Authority, m config.Member, path string, now time.Time) error {
	key, err := trust.NewKey()
	if err != nil {
		return err
	}
	csr, err := trust.NewRequest(key)
	if err != nil {
		return err
	}
	cert, err := a.Sign(order(m, csr, now))
	if err != nil {
		return err
	}
	return trust.SaveIdentity(path, key, cert, a.CertificatePEM())
}

// order asks for a coordinator's certificate with the names under which browsers and webhooks reach it.
func order(m config.Member, csr []byte, now time.Time) trust.Order {
	o := trust.Order{
		Request: csr, Identity: trust.Identity{Role: trust.RoleCoordinator, Name: m.Name}, Hosts: []string{"localhost", "127.0.0.1"},
		Life: trust.DaemonLife, Now: now,
	}
	if host, _, err := net.SplitHostPort(m.API); err == nil {
		o.Hosts = append(o.Hosts, host)
	}
	return o
}
