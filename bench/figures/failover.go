package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hotspare/hotspare/bench/byhand"
	"github.com/hotspare/hotspare/bench/figure"
	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/e2e/site"
	"github.com/hotspare/hotspare/e2e/whole"
	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

const (
	productionDomain = site.ProductionDomain
	volumeName       = "webshop-db-root"
	shopName         = "www.shop.example."
	healthURL        = "http://" + site.ProductionAddress + "/health"
	// Where the guest's console is, below its host's directory: hotspare's (one exists at a time) and the script's.
	hotspareConsole = "data/instances/hs-webshop-db-e*/console.log"
	handConsole     = "data/byhand.console"
	// quietLimit bounds the wait for a moment in which no agent talks to the storage daemon.
	quietLimit = 5 * time.Second
)

// measureFailover fails over by hotspare and by hand, in turn, each time in another order.
func (b *bed) measureFailover(ctx context.Context, f *figures) error {
	if err := b.Apply(ctx, site.WebShop); err != nil {
		return err
	}
	synced, err := b.awaitProduction(ctx, 0)
	if err != nil {
		return err
	}
	var script *byhand.Script
	round := func(by string) error {
		var l figure.Line
		var err error
		if by == "hand" {
			l, err = b.handRound(ctx, script)
		} else {
			l, script, err = b.hotspareRound(ctx)
		}
		if err != nil {
			return fmt.Errorf("failover by %s: %w", by, err)
		}
		f.add(l)
		synced, err = b.awaitProduction(ctx, synced)
		return err
	}
	for n := range f.rounds {
		order := []string{"hotspare", "hand"}
		if n%2 == 1 {
			slices.Reverse(order)
		}
		for _, by := range order {
			if err := round(by); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitProduction waits until the protected VM has booted and is replicated by a newer synchronisation than the last.
func (b *bed) awaitProduction(ctx context.Context, synced uint64) (uint64, error) {
	if _, err := b.AwaitProduction(ctx, site.ProductionAddress); err != nil {
		return 0, err
	}
	if err := b.awaitRest(ctx); err != nil {
		return 0, err
	}
	synced, err := b.replicated(ctx, volumeName, synced)
	if err != nil {
		return 0, err
	}
	return synced, b.AwaitReady(ctx, "webshop")
}

// restart brings the protected site back after a round.
func (b *bed) restart(ctx context.Context) error {
	if err := b.East.LinkUp(ctx, "prod0"); err != nil {
		return err
	}
	return b.StartProduction(ctx)
}

// hotspareRound is one failover and failback by hotspare, and what a script must know to do the same.
func (b *bed) hotspareRound(ctx context.Context) (l figure.Line, script *byhand.Script, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := b.East.LinkDown(ctx, "prod0"); err != nil {
		return l, nil, err
	}
	result := b.observe(ctx, hotspareConsole, shopName, site.NewName)
	began := time.Now()
	f, err := b.declare(ctx, "webshop")
	if err != nil {
		return l, nil, err
	}
	saw, err := result()
	if err != nil {
		return l, nil, err
	}
	if f, err = b.awaitPhase(ctx, f.GetName(), pb.RunPhase_RUN_PHASE_COMPLETED); err != nil {
		return l, nil, err
	}
	if err := b.proveData(ctx); err != nil {
		return l, nil, err
	}
	start := startStep(f)
	l = line("hotspare", began, start.GetCallReturned().AsTime(), start.GetHealthyAt().AsTime(), saw)
	own, whole := whole.OurPart(f)
	l.Values["own-ms"], l.Values["own-percent"] = ms(own), 100*own.Seconds()/whole.Seconds()
	for _, st := range f.GetSteps() {
		say("  %-32s released %4.0f began %4.0f returned %4.0f done %4.0f ms", st.GetId(), since(f, st.GetReleasedAt().AsTime()),
			since(f, st.GetCallBegan().AsTime()), since(f, st.GetCallReturned().AsTime()), since(f, st.GetDoneAt().AsTime()))
	}
	say("  healthy %.0f, completed %.0f ms after it was declared", since(f, start.GetHealthyAt().AsTime()), ms(whole))
	if script, err = b.script(ctx, f); err != nil {
		return l, nil, err
	}
	if err := b.failBack(ctx, f.GetName()); err != nil {
		return l, nil, err
	}
	return l, script, b.restart(ctx)
}

// proveData asks the guest whether it runs on the replicated disk: a failover onto an empty one would be no failover.
func (b *bed) proveData(ctx context.Context) error {
	a, err := b.AwaitProduction(ctx, site.ProductionAddress)
	if err == nil && (a.Disk.Marker != "production" || a.Disk.LastRecord == 0) {
		err = fmt.Errorf("the guest has disk %q with record %d", a.Disk.Marker, a.Disk.LastRecord)
	}
	return err
}

// line is what both kinds of rounds report.
func line(by string, began, started, healthy time.Time, saw seen) figure.Line {
	total, boot := saw.Named.Sub(began), saw.Served.Sub(started)
	return figure.Line{Name: "Failover/by=" + by, Values: map[string]float64{
		"ns/op": float64(total), "boot-ms": ms(boot), "without-boot-ms": ms(total - boot), "notice-ms": ms(healthy.Sub(saw.Served)),
	}}
}

func ms(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
}

func since(f *pb.Failover, t time.Time) float64 { return ms(t.Sub(f.GetDeclaredAt().AsTime())) }

// startStep is the step that starts the protected VM.
func startStep(f *pb.Failover) *pb.Step {
	i := slices.IndexFunc(f.GetSteps(), func(st *pb.Step) bool { return st.GetWorkload() != "" && st.GetKind() == pb.Kind_KIND_INSTANCE })
	if i < 0 {
		return nil
	}
	return f.GetSteps()[i]
}

// script learns from a failover that is complete how to do the same by hand.
func (b *bed) script(ctx context.Context, f *pb.Failover) (*byhand.Script, error) {
	if len(f.GetPlacements()) != 1 || len(f.GetVictims()) != 1 {
		return nil, fmt.Errorf("%s has %d placements and %d victims, not one of each", f.GetName(), len(f.GetPlacements()), len(f.GetVictims()))
	}
	h, err := b.Host(f.GetPlacements()[0].GetHost())
	if err != nil {
		return nil, err
	}
	probe := map[string]string{b.H1.Name: "10.10.0.201/24", b.H2.Name: "10.10.0.202/24"}[h.Name]
	theirs := byhand.Domain{Socket: h.LibvirtSocket, Name: domainOf(f.GetPlacements()[0].GetObject())}
	xml, err := theirs.Definition(ctx)
	if err != nil {
		return nil, err
	}
	guest := byhand.Domain{Socket: h.LibvirtSocket, Name: "byhand"}
	xml, err = byhand.Renamed(xml, guest.Name, filepath.Join(h.Dir, handConsole))
	if err != nil {
		return nil, err
	}
	key, secret := b.UpdateKey()
	const namespaces = "/run/netns/"
	return &byhand.Script{
		Old:    byhand.Domain{Socket: b.East.LibvirtSocket, Name: productionDomain},
		Victim: byhand.Domain{Socket: h.LibvirtSocket, Name: domainOf(f.GetVictims()[0].GetObject())},
		Image:  filepath.Join(h.Dir, "data", "byhand.ram"), Guest: guest, XML: xml,
		Network: byhand.Network{Namespace: namespaces + h.NetNS, Bridge: "br-prod10", Uplink: "prod0", Probe: probe},
		Health:  healthURL,
		Name: byhand.Record{
			Namespace: namespaces + b.GW.NetNS, Server: b.DNS.MgmtAddr + ":53", Zone: "shop.example.", Name: shopName,
			Old: site.OldName, New: site.NewName, TTL: 30, Key: key, KeySecret: secret,
		},
	}, nil
}

// domainOf is the name of an object's domain.
func domainOf(object string) string { return "hs-" + strings.TrimPrefix(object, "instance/") }

// handRound is one failover by the script and what puts it back. hotspare's processes stand still meanwhile: they would repair
// what the script does, and the script gets their share of the machine.
func (b *bed) handRound(ctx context.Context, script *byhand.Script) (l figure.Line, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := b.East.LinkDown(ctx, "prod0"); err != nil {
		return l, err
	}
	for _, h := range []*lab.Host{b.H1, b.H2} {
		if err := os.RemoveAll(filepath.Join(h.Dir, handConsole)); err != nil {
			return l, err
		}
	}
	if script.Replica, err = b.freeze(ctx); err != nil {
		return l, err
	}
	result := b.observe(ctx, handConsole, shopName, site.NewName)
	r, runErr := script.Run(ctx)
	if runErr == nil {
		var saw seen
		if saw, runErr = result(); runErr == nil {
			l = line("hand", r.Began, r.Started, r.Healthy, saw)
			runErr = b.proveData(ctx)
		}
	}
	for _, name := range []string{"fence", "promote", "save", "network", "define", "start", "healthy", "announce"} {
		say("  %-32s began %4.0f ended %4.0f ms", name, ms(r.Spans[name].Began), ms(r.Spans[name].Ended))
	}
	if err := errors.Join(runErr, script.Undo(ctx), b.signal(syscall.SIGCONT)); err != nil {
		return l, err
	}
	return l, b.restart(ctx)
}

// freeze stops hotspare's processes at a moment in which no agent talks to the storage daemon, which
// serves one client at a time, and returns what the daemon exports to the mirror. On an error they go on.
func (b *bed) freeze(ctx context.Context) (byhand.Replica, error) {
	ctx, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	socket := filepath.Join(b.Store.Dir, "data", "west", ".daemon", "qmp.sock")
	for {
		if err := b.signal(syscall.SIGSTOP); err != nil {
			// Some of them stand still.
			return byhand.Replica{}, errors.Join(err, b.signal(syscall.SIGCONT))
		}
		once, done := context.WithTimeout(ctx, time.Second)
		r, err := byhand.FindReplica(once, socket, volumeName)
		done()
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			return r, errors.Join(err, b.signal(syscall.SIGCONT))
		}
		if err := b.signal(syscall.SIGCONT); err != nil {
			return byhand.Replica{}, err
		}
		if err := pause(ctx, askEvery); err != nil {
			return byhand.Replica{}, err
		}
	}
}
