// Package whole is the whole story of hotspare on a site of real parts: an ordinary day, the loss of
// the protected site, the failover that monitoring declares by itself, and the way back. It
// runs the product's own commands, tells what it does (package story) and checks each
// claim by looking itself (package site). The end-to-end test and `make demo` call it.
package whole

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/hotspare/hotspare/e2e/site"
	"github.com/hotspare/hotspare/e2e/story"
)

// noticeLimit bounds how long monitoring may take from the loss to the declaration; 4 to 6 s were seen.
const noticeLimit = time.Minute

// runLimit bounds a failover or a failback; 20 to 40 s were seen.
const runLimit = 4 * time.Minute

// Story is the whole story on one site.
type Story struct {
	*story.Teller
	Site *site.Site
	// Strike, when set, does some harm in the middle of the failover.
	Strike func(context.Context) error
	// StrikeBack, when set, does some harm in the middle of the failback.
	StrikeBack func(context.Context) error

	leases    []site.Lease
	lent      map[string]site.Answer // what the lent guests said on the ordinary day
	objects   string                 // what `hotspare objects list` said then
	inventory []string               // what existed then
	layers    int                    // how many layers the replica had
	starts    map[string]int         // how often QEMU had started for each domain
	lastSeen  site.Answer            // what production said last before the disaster
}

// Tell tells it all and returns the first thing that is not as told.
func (s *Story) Tell(ctx context.Context) error {
	for _, chapter := range []func(context.Context) error{
		s.ordinaryDay, s.lend, s.lose, s.failOver, s.proveFailover, s.failBack, s.proveFailback,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	return nil
}

// ordinaryDay declares the plan and waits until production is replicated.
func (s *Story) ordinaryDay(ctx context.Context) error {
	s.Head("An ordinary day: production runs at site east and is replicated")
	a, err := s.Site.AwaitProduction(ctx, site.ProductionAddress)
	if err != nil {
		return err
	}
	s.Say("%s answers at %s from disk %q, and writes a record every 0.2 s: %d so far",
		a.Hostname, site.ProductionAddress, a.Disk.Marker, a.Disk.LastRecord)
	if err := s.Site.Apply(ctx, site.WebShop); err != nil {
		return err
	}
	if err := s.Site.AwaitReady(ctx, "webshop"); err != nil {
		return err
	}
	out, err := s.Run(ctx, "status")
	if err != nil {
		return err
	}
	return s.Check(strings.Contains(out, "Proven("), "the plan is ready, and the site proves that it fits")
}

// lend fills the recovery hosts with developers' VMs and starts monitoring.
func (s *Story) lend(ctx context.Context) error {
	s.Head("Developers use the idle recovery hosts")
	for range 2 {
		if _, err := s.Run(ctx, "lease", "create", "-p", "web", "--vm", "2cpu,128MiB", "--image", "tiny", "--term", "1h",
			"--on-preempt", "save", "--grace", "1s", "--wait"); err != nil {
			return err
		}
	}
	var err error
	if s.leases, err = s.readLeases(ctx); err != nil {
		return err
	}
	if s.lent, err = s.Site.Answers(ctx, s.leases...); err != nil {
		return err
	}
	for object, a := range s.lent {
		s.Say("%s answers: boot id %.8s, counter %d", object, a.BootID, a.Counter)
	}
	if err := s.Site.StartMonitoring(ctx); err != nil {
		return err
	}
	s.Say("Prometheus probes production, Alertmanager may declare")
	if s.objects, err = s.Ask(ctx, "objects", "list"); err != nil {
		return err
	}
	if s.inventory, err = s.Site.Inventory(ctx); err != nil {
		return err
	}
	if s.layers, err = s.Site.Layers(ctx, "webshop-db-root"); err != nil {
		return err
	}
	s.starts, err = s.Site.QEMUStarts()
	return err
}

// readLeases reads both leases.
func (s *Story) readLeases(ctx context.Context) ([]site.Lease, error) {
	var leases []site.Lease
	for _, name := range []string{"web-1", "web-2"} {
		l, err := s.Site.Lease(ctx, name)
		if err != nil {
			return nil, err
		}
		leases = append(leases, l)
	}
	return leases, nil
}

// lose cuts production off: its VM runs on where nobody sees it, which is why it must be fenced.
func (s *Story) lose(ctx context.Context) error {
	s.Head("Site east loses its network; its VM runs on, unseen")
	var err error
	if s.lastSeen, err = s.Site.AskProduction(ctx, site.ProductionAddress); err != nil {
		return err
	}
	if err := s.Site.East.LinkDown(ctx, "prod0"); err != nil {
		return err
	}
	s.Say("the last record that production acknowledged to us is %d", s.lastSeen.Disk.LastRecord)
	began := time.Now()
	wait, cancel := context.WithTimeout(ctx, noticeLimit)
	defer cancel()
	if _, err := s.AskUntil(wait, "monitoring to declare", func(out string) bool { return strings.Contains(out, "fo-1") },
		"failover", "list"); err != nil {
		return err
	}
	s.Say("nobody touched anything: after %.1f s Alertmanager has declared", time.Since(began).Seconds())
	if _, err = s.Run(ctx, "failover", "list"); err != nil || s.Strike == nil {
		return err
	}
	return s.Strike(ctx)
}

// failOver follows the failover.
func (s *Story) failOver(ctx context.Context) error {
	s.Head("Fence, save what is in the way, promote, start, repoint the name")
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	out, err := s.Follow(ctx, "failover", "watch", "webshop")
	if err != nil {
		return err
	}
	if err := s.Check(strings.Contains(out, "completed in"), "the failover is complete"); err != nil {
		return err
	}
	return s.tellOurPart(ctx)
}

// proveFailover looks at every claim from outside.
func (s *Story) proveFailover(ctx context.Context) error {
	s.Head("What others say about it")
	state, err := s.Site.ProductionState(ctx)
	if err != nil {
		return err
	}
	a, err := s.Site.AwaitProduction(ctx, site.ProductionAddress)
	if err != nil {
		return err
	}
	old, err := s.Site.OldDisk(ctx)
	if err != nil {
		return err
	}
	name, err := s.Site.Name(ctx)
	if err != nil {
		return err
	}
	leases, err := s.Run(ctx, "lease", "list")
	if err != nil {
		return err
	}
	exports := s.Site.Exports(ctx, s.Site.Store)
	layers, err := s.Site.Layers(ctx, "webshop-db-root")
	if err != nil {
		return err
	}
	return firstError(
		s.Check(state == "shut off", "the old hypervisor says of the old VM: %s", state),
		s.Check(slices.Equal(exports, []string{"webshop-db-root"}), "the storage daemon exports the promoted volume only: %v", exports),
		s.Check(layers == s.layers+1, "it was promoted once: the replica had %d layer(s), the volume has %d", s.layers, layers),
		s.Check(a.BootID != s.lastSeen.BootID, "another VM answers at %s: boot id %.8s, not %.8s", site.ProductionAddress, a.BootID, s.lastSeen.BootID),
		s.Check(a.Disk.Marker == s.lastSeen.Disk.Marker && a.Disk.LastRecord >= s.lastSeen.Disk.LastRecord,
			"it has disk %q with record %d; %d was acknowledged to us", a.Disk.Marker, a.Disk.LastRecord, s.lastSeen.Disk.LastRecord),
		// A record that was not acknowledged when the power went may be on one side only.
		s.Check(a.Disk.LastRecord+1 >= old.Last, "nothing acknowledged was lost: the old disk ends with record %d", old.Last),
		s.Check(name == site.NewName, "the name server says %s, before it was %s", name, site.OldName),
		s.Check(strings.Count(leases, "preempted") == 1 && strings.Contains(leases, "stands still"), "only the lease in the way is preempted, and its term stands still"),
	)
}

// failBack brings everything back, with what was written here. Nobody at the protected site does anything.
func (s *Story) failBack(ctx context.Context) error {
	s.Head("Site east is back: what was written here goes back with it")
	if err := s.Site.East.LinkUp(ctx, "prod0"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	here := s.listen(ctx)
	struck := make(chan error, 1)
	go func() {
		err := errors.New("the harm on the way back was not done to its end")
		defer func() { struck <- err }() // Also when a test gives up in it.
		if s.StrikeBack == nil {
			err = nil
			return
		}
		err = s.StrikeBack(ctx)
	}()
	if _, err := s.Follow(ctx, "failback", "webshop", "--reason", "the site is back", "--wait"); err != nil {
		cancel()
		return errors.Join(err, <-struck)
	}
	last := here()
	if err := <-struck; err != nil {
		return err
	}
	a, err := s.Site.AwaitProduction(ctx, site.ProductionAddress)
	if err != nil {
		return err
	}
	state, err := s.Site.ProductionState(ctx)
	if err != nil {
		return err
	}
	if err := firstError(
		s.Check(state == "running", "the old hypervisor says of the production VM: %s; nobody has started it by hand", state),
		s.Check(last.Disk.LastRecord > s.lastSeen.Disk.LastRecord, "the last record that the recovery site acknowledged to us is %d", last.Disk.LastRecord),
		s.Check(a.BootID != last.BootID && a.Disk.Marker == last.Disk.Marker && a.Disk.LastRecord >= last.Disk.LastRecord,
			"production at site east has it: disk %q with record %d", a.Disk.Marker, a.Disk.LastRecord),
	); err != nil {
		return err
	}
	if err := s.Site.AwaitReady(ctx, "webshop"); err != nil {
		return err
	}
	_, err = s.Run(ctx, "status")
	return err
}

// listen asks the VM that serves now, over and over, until the returned function is called, which says
// what it answered last. Answers of another VM do not count.
func (s *Story) listen(ctx context.Context) (last func() site.Answer) {
	stop, answers := make(chan struct{}), make(chan site.Answer, 1)
	go func() {
		var last site.Answer
		for ctx.Err() == nil {
			select {
			case <-stop:
				answers <- last
				return
			default:
			}
			// A question is never cut short: its shell would be left behind with the answer's pipe.
			a, err := s.Site.AskProduction(ctx, site.ProductionAddress)
			if err == nil && (last.BootID == "" || a.BootID == last.BootID) {
				last = a
			}
		}
		answers <- last
	}()
	return func() site.Answer {
		close(stop)
		return <-answers
	}
}

// proveFailback compares with the ordinary day.
func (s *Story) proveFailback(ctx context.Context) error {
	s.Head("As if nothing had happened")
	back, err := s.readLeases(ctx)
	if err != nil {
		return err
	}
	same := slices.EqualFunc(back, s.leases, func(a, b site.Lease) bool { return slices.Equal(a.Instances, b.Instances) })
	if err := s.Check(same, "the lent VMs have their hosts, MACs and addresses"); err != nil {
		return err
	}
	answers, err := s.Site.Answers(ctx, back...)
	if err != nil {
		return err
	}
	for object, a := range answers {
		was := s.lent[object]
		if err := s.Check(a.BootID == was.BootID && a.Counter > was.Counter, "%s counts on: boot id %.8s, %d after %d",
			object, a.BootID, a.Counter, was.Counter); err != nil {
			return err
		}
	}
	name, err := s.Site.Name(ctx)
	if err != nil {
		return err
	}
	objects, err := s.Run(ctx, "objects", "list")
	if err != nil {
		return err
	}
	inventory, err := s.Site.Inventory(ctx)
	if err != nil {
		return err
	}
	starts, err := s.Site.QEMUStarts()
	if err != nil {
		return err
	}
	return firstError(
		s.Check(name == site.OldName, "the name server says %s again", name),
		s.noDifference("no object differs from the day before", s.objects, objects),
		s.noDifference("an independent inventory of all machines finds nothing left behind",
			strings.Join(s.inventory, "\n"), strings.Join(inventory, "\n")),
		s.countStarts(starts),
	)
}

// countStarts checks that QEMU was started no more often than the story needs: once for the protected VM, once more for
// each lent VM that was saved.
func (s *Story) countStarts(starts map[string]int) error {
	protected, again := 0, 0
	for domain, n := range starts {
		if before, known := s.starts[domain]; known {
			again += n - before
			continue
		}
		protected += n
	}
	return s.Check(protected == 1 && again == 1, "libvirt's log: QEMU was started %d time for the protected VM, %d time to restore a lent one", protected, again)
}

// noDifference checks that two texts are equal but for the order of lines.
func (s *Story) noDifference(claim, before, after string) error {
	for _, line := range story.Difference(before, after) {
		s.Say("%s", line)
		claim += "; " + line
	}
	return s.Check(!strings.Contains(claim, "; "), "%s", claim)
}

// firstError returns the first of several checks that does not hold.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
