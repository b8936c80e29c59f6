package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/e2e/site"
	"github.com/hotspare/hotspare/e2e/story"
	"github.com/hotspare/hotspare/e2e/whole"
)

// realLimit bounds the story on real parts; 2 minutes were seen on two busy cores.
const realLimit = 15 * time.Minute

// tell chooses the site and tells the story on it.
func tell(ctx context.Context, keep bool) error {
	if os.Getenv("HOTSPARE_DEMO") == "sim" || os.Geteuid() != 0 {
		return tellSim(ctx, keep)
	}
	return tellReal(ctx, keep)
}

// tellReal tells the story on real parts.
func tellReal(ctx context.Context, keep bool) (err error) {
	if missing := lab.Missing(); len(missing) > 0 {
		return fmt.Errorf("the real site cannot run here: %s (HOTSPARE_DEMO=sim tells the story on simulated VMs)", strings.Join(missing, ", "))
	}
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, realLimit)
	defer cancel()
	t := &story.Teller{Out: os.Stdout, Began: time.Now()}
	t.Head("A recovery site of real parts on this machine")
	t.Say("three coordinators, two libvirt hosts, a storage host, a name server, monitoring,")
	t.Say("and a protected site with one VM; each in namespaces of its own")
	s, err := site.New(limited, site.Options{Name: "hsdemo", Bin: bin, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	t.Hotspare = s.Hotspare
	err = (&whole.Story{Teller: t, Site: s}).Tell(limited)
	if err != nil {
		err = errors.Join(err, s.Logs())
	}
	if keep {
		keepReal(ctx, t, s)
	}
	if closeErr := s.Close(); closeErr != nil {
		return errors.Join(err, closeErr)
	}
	if err != nil {
		return err
	}
	t.Head("The site was removed")
	return t.Check(!exists(s.Lab.Dir()), "nothing is left behind: no process, no namespace, no file")
}

// keepReal prints what to try and waits for Ctrl-C.
func keepReal(ctx context.Context, t *story.Teller, s *site.Site) {
	t.Head("KEEP=1: the site runs on until Ctrl-C; try in another terminal, as root")
	for _, line := range []string{
		"alias hotspare='" + strings.Join(s.Hotspare(ctx).Args, " ") + "'",
		"hotspare status",
		"hotspare failover describe fo-1",
		"hotspare evidence list",
		"virsh -c '" + s.H1.LibvirtURI() + "' list --all",
		"ip netns exec " + s.Client.NetNS + " kdig +short @" + s.DNS.MgmtAddr + " www.shop.example",
	} {
		fmt.Fprintln(t.Out, line)
	}
	<-ctx.Done()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
