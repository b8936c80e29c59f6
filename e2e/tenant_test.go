package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hotspare/hotspare/e2e/guest"
	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/e2e/site"
)

// tenantManifests add a guest that asks its host's metadata service, and a project that may clone production.
const tenantManifests = `apiVersion: hotspare/v1
kind: Image
metadata: {name: told}
spec: {kernel: %s, initrd: %s, cmdline: "%s"}
---
apiVersion: hotspare/v1
kind: Project
metadata: {name: data}
spec:
  quota: {vcpus: 8, memory: 4GiB, instances: 4}
  longestTerm: 7d
  longestGrace: 30s
  clones: [webshop/db]
  network: lent
`

const (
	tenantUserData = "#cloud-config\nmotd: hello tenant\n"
	tenantKey      = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIELe3te6SvjGjeiLoAz5SK0xIU1cOiblEVfk2f/Gn2Bn carol"
	// tenantGrace is what the guests of the test have before their save; they say nothing, so all of it is used.
	tenantGrace = 3 * time.Second
	// ownRecords are written to the copy: far more than production writes meanwhile.
	ownRecords = 1000
	// recordsAtOnce fit the time of one request, each synced to disk on a busy machine.
	recordsAtOnce = 50
)

// tenant is what a developer has in this test.
type tenant struct {
	*site.Site
	dir string
	// own is the number of the last record that the guest wrote to its copy.
	own   uint64
	first map[string]site.Answer
}

// TestTenant is what a developer gets from a lease: a copy of production's data, user-data and keys, the console, a
// warning before a preemption, the VM back afterwards, an undelete, and an end of the term that needs no coordinator.
func TestTenant(t *testing.T) {
	ctx, s := newSite(t, "e2eten")
	d := &tenant{Site: s, dir: t.TempDir()}
	applyPlan(ctx, t, s, "webshop", site.WebShop)
	cmdline := guest.Params{MetadataEvery: 200 * time.Millisecond}.CommandLine()
	if err := s.Apply(ctx, fmt.Sprintf(tenantManifests, s.Image.Kernel, s.Image.Initrd, cmdline)); err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct {
		name string
		run  func(context.Context, *testing.T)
	}{
		{"refusals", d.refusals},
		{"a copy of production", d.copied},
		{"the host's firewall is reloaded", d.flushed},
		{"preempted and back", d.preempted},
		{"a host is drained", d.drained},
		{"released and undeleted", d.undeleted},
		{"the term ends without a coordinator", d.termEnds},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(ctx, t) }) {
			return // The next part would begin from a broken site.
		}
	}
}

func (d *tenant) file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// refusals are requests that nobody gets.
func (d *tenant) refusals(ctx context.Context, t *testing.T) {
	create := []string{"lease", "create", "--vm", "2cpu,128MiB", "--image", "told", "--term", "1h"}
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a copy that the project may not have": {append(create, "-p", "web", "--clone-of", "webshop/db"), 4, "may not clone webshop/db"},
		"a copy of nothing":                    {append(create, "-p", "data", "--clone-of", "webshop/nothing"), 4, "may not clone"},
		"user-data of a byte too much":         {append(create, "-p", "web", "--user-data", d.file(t, "big", strings.Repeat("x", 64<<10+1))), 2, "65537 bytes"},
		"a key that is none":                   {append(create, "-p", "web", "--ssh-key", d.file(t, "text", "hello\n")), 2, "no ssh public key"},
		"the console of no lease":              {[]string{"lease", "console", "data-9"}, 1, "no such lease"},
	} {
		_, err := d.Run(ctx, c.args...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want exit code %d and %q", name, err, c.code, c.says)
		}
	}
}

// copied leases two VMs on copies of production's disk, which fill the site.
func (d *tenant) copied(ctx context.Context, t *testing.T) {
	eventually(ctx, t, phaseLimit, "production to have written something", func(ctx context.Context) error {
		a, err := d.AwaitProduction(ctx, site.ProductionAddress)
		if err == nil && a.Disk.LastRecord == 0 {
			err = errors.New("it has no record")
		}
		return err
	})
	run(ctx, t, d.Site, "lease", "create", "-p", "data", "--vm", "2x2cpu,128MiB", "--image", "told", "--clone-of", "webshop/db", "--term", "1h",
		"--on-preempt", "save", "--grace", tenantGrace.String(), "--user-data", d.file(t, "user-data", tenantUserData),
		"--ssh-key", d.file(t, "id.pub", tenantKey+"\n"), "--wait")
	lease, err := d.Lease(ctx, "data-1")
	if err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, time.Minute, "the guests to hear from the metadata service", func(ctx context.Context) error {
		if d.first, err = d.Answers(ctx, lease); err != nil {
			return err
		}
		for object, a := range d.first {
			m := a.Metadata
			if m.Lease != "data-1" || m.UserData != tenantUserData || len(m.SSHKeys) != 1 || m.SSHKeys[0] != tenantKey || m.Told {
				return fmt.Errorf("%s heard %+v", object, m)
			}
		}
		return nil
	})
	for object, a := range d.first {
		if a.Disk.Marker != "production" || a.Disk.LastRecord == 0 || a.Disk.Error != "" {
			t.Errorf("%s has disk %+v, want a copy of production's", object, a.Disk)
		}
	}
	for i := range lease.Instances {
		out := run(ctx, t, d.Site, "lease", "console", "data-1", "--vm", fmt.Sprint(i))
		if !strings.Contains(out, "hotspare-guest ready name=data-1-"+fmt.Sprint(i)) {
			t.Errorf("the console of VM %d does not show its boot", i)
		}
	}
	d.write(ctx, t, lease.Instances[0])
	production, err := d.AskProduction(ctx, site.ProductionAddress)
	if err != nil || production.Disk.LastRecord >= d.own || d.own < ownRecords {
		t.Errorf("the copy's last record is %d, production has %+v, %v", d.own, production.Disk, err)
	}
	before := lease.EndsAt
	run(ctx, t, d.Site, "lease", "extend", "data-1", "--by", "1h")
	if lease, err = d.Lease(ctx, "data-1"); err != nil || !lease.EndsAt.Equal(before.Add(time.Hour)) {
		t.Errorf("extended from %v to %v, %v", before, lease.EndsAt, err)
	}
}

// write adds records to the copy that a guest has.
func (d *tenant) write(ctx context.Context, t *testing.T, vm site.Instance) {
	t.Helper()
	h, err := d.Host(vm.Host)
	if err != nil {
		t.Fatal(err)
	}
	address, _, _ := strings.Cut(vm.Address, "/")
	for range ownRecords / recordsAtOnce {
		body, err := d.RequestLent(ctx, h, address, fmt.Sprintf("POST /records?count=%d", recordsAtOnce))
		var wrote struct {
			Last uint64 `json:"last"`
		}
		if err = errors.Join(err, json.Unmarshal([]byte(body), &wrote)); err != nil {
			t.Fatalf("write to the copy: %v: %q", err, body)
		}
		d.own = wrote.Last
	}
}

// flushed takes all filters of the lease's host away. The agent notices by itself; that the metadata service
// answers again is shown by the next part, whose notices go through it.
func (d *tenant) flushed(ctx context.Context, t *testing.T) {
	lease, err := d.Lease(ctx, "data-1")
	if err != nil {
		t.Fatal(err)
	}
	h, err := d.Host(lease.Instances[0].Host)
	if err != nil {
		t.Fatal(err)
	}
	// Elements in braces, so that an empty set does not count.
	apart := func(ctx context.Context) error {
		rules, err := h.Run(ctx, "nft", "list", "ruleset")
		if err == nil && (!strings.Contains(rules, "table inet hotspare {") || !strings.Contains(rules, "table bridge hotspare-") ||
			!regexp.MustCompile(`set machines {[^}]*elements = {`).MatchString(rules)) {
			err = fmt.Errorf("the host has only these filters:\n%s", rules)
		}
		return err
	}
	if err := apart(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Run(ctx, "nft", "flush", "ruleset"); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, 20*time.Second, "the agent to make the filters anew", apart)
}

// steps are a failover's, as `failover describe -o json` shows them.
type steps struct {
	Steps []struct {
		ID         string    `json:"id"`
		Lease      string    `json:"lease"`
		ReleasedAt time.Time `json:"releasedAt"`
		CallBegan  time.Time `json:"callBegan"`
	} `json:"steps"`
}

// preempted takes both VMs for a failover and gives them back.
func (d *tenant) preempted(ctx context.Context, t *testing.T) {
	last, err := d.AskProduction(ctx, site.ProductionAddress)
	if err != nil {
		t.Fatal(err)
	}
	run(ctx, t, d.Site, "failover", "declare", "webshop", "--reason", "the site is flooded", "--yes", "--wait")
	var f steps
	if err := json.Unmarshal([]byte(run(ctx, t, d.Site, "failover", "describe", "fo-1", "-o", "json")), &f); err != nil {
		t.Fatal(err)
	}
	taken := 0
	for _, st := range f.Steps {
		if st.Lease == "" {
			continue
		}
		taken++
		if waited := st.CallBegan.Sub(st.ReleasedAt); waited < tenantGrace || waited > tenantGrace+time.Second {
			t.Errorf("%s: the save began %v after the order, the grace is %v", st.ID, waited, tenantGrace)
		}
	}
	if taken != 2 {
		t.Errorf("%d VMs were taken: %+v", taken, f)
	}
	if out := run(ctx, t, d.Site, "lease", "describe", "data-1"); !strings.Contains(out, "preempted by fo-1") || !strings.Contains(out, "the site is flooded") {
		t.Error("the owner is not told by which failover and why")
	}
	if out := run(ctx, t, d.Site, "lease", "console", "data-1"); !strings.Contains(out, "hotspare-guest is told: save by") ||
		!strings.Contains(out, "failover fo-1: the site is flooded") {
		t.Error("the guest was not told before its save")
	}
	if a, err := d.AwaitProduction(ctx, site.ProductionAddress); err != nil || a.Disk.Marker != "production" ||
		a.Disk.LastRecord < last.Disk.LastRecord || a.Disk.LastRecord >= d.own {
		t.Errorf("the promoted volume has %+v, %v; production had %d records, the copy %d", a.Disk, err, last.Disk.LastRecord, d.own)
	}
	run(ctx, t, d.Site, "failback", "webshop", "--discard-recovery-data", "--reason", "test", "--yes", "--wait")
	if err := d.StartProduction(ctx); err != nil {
		t.Fatal(err)
	}
	d.back(ctx, t, func(object string, a site.Answer) error {
		if a.Metadata.Notices != 1 || a.Metadata.Told || a.Metadata.Preemption.Failover != "fo-1" {
			return fmt.Errorf("%s heard %+v", object, a.Metadata)
		}
		return nil
	})
}

// back waits until the lease is active, and checks that its guests went on where they were, with their disks.
func (d *tenant) back(ctx context.Context, t *testing.T, more func(object string, a site.Answer) error) {
	t.Helper()
	eventually(ctx, t, phaseLimit, "the lease to be back", func(ctx context.Context) error {
		lease, err := d.Lease(ctx, "data-1")
		if err == nil && lease.Phase != "LEASE_PHASE_ACTIVE" {
			err = fmt.Errorf("it is %s", lease.Phase)
		}
		if err != nil {
			return err
		}
		now, err := d.Answers(ctx, lease)
		if err != nil {
			return err
		}
		for object, a := range now {
			was := d.first[object]
			if a.BootID != was.BootID || a.Counter <= was.Counter || a.Disk.Marker != "production" || a.Disk.Error != "" {
				return fmt.Errorf("%s was %+v and is %+v", object, was, a)
			}
			if object == lease.Instances[0].Object && a.Disk.LastRecord != d.own {
				return fmt.Errorf("the copy's last record was %d and is %d", d.own, a.Disk.LastRecord)
			}
			if err := more(object, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// undeleted releases the lease and takes it back: RAM and disk are as they were.
// drained takes a host of the lease out of service, and with it the whole lease.
func (d *tenant) drained(ctx context.Context, t *testing.T) {
	lease, err := d.Lease(ctx, "data-1")
	if err != nil {
		t.Fatal(err)
	}
	drain := []string{"host", "drain", lease.Instances[0].Host, "--use-tolerance", "--for", "1h", "--reason", "new memory"}
	if out := run(ctx, t, d.Site, append(drain, "--dry-run")...); strings.Count(out, "data-1-") != 2 {
		t.Error("the dry run does not show the two VMs that would go")
	}
	run(ctx, t, d.Site, append(drain, "--wait")...)
	d.off(ctx, t, "data-1", "LEASE_PHASE_PREEMPTED")
	if out := run(ctx, t, d.Site, "lease", "console", "data-1"); !strings.Contains(out, "is drained: new memory") {
		t.Error("the guest was not told before its save")
	}
	run(ctx, t, d.Site, "host", "uncordon", lease.Instances[0].Host)
	d.back(ctx, t, func(object string, a site.Answer) error {
		if a.Metadata.Notices != 2 || a.Metadata.Told || a.Metadata.Preemption.Failover != "fo-2" {
			return fmt.Errorf("%s heard %+v", object, a.Metadata)
		}
		return nil
	})
}

func (d *tenant) undeleted(ctx context.Context, t *testing.T) {
	run(ctx, t, d.Site, "lease", "release", "data-1")
	d.off(ctx, t, "data-1", "LEASE_PHASE_ENDED")
	run(ctx, t, d.Site, "lease", "undelete", "data-1")
	d.back(ctx, t, func(string, site.Answer) error { return nil })
	run(ctx, t, d.Site, "lease", "release", "data-1")
	d.off(ctx, t, "data-1", "LEASE_PHASE_ENDED")
}

// off waits until a lease is in a phase and its VMs are off with their RAM kept, as libvirt and the files say.
func (d *tenant) off(ctx context.Context, t *testing.T, name, phase string) {
	t.Helper()
	lease, err := d.Lease(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, phaseLimit, name+" to be off", func(ctx context.Context) error {
		if lease, err = d.Lease(ctx, name); err != nil || lease.Phase != phase {
			return fmt.Errorf("it is %s, %w", lease.Phase, err)
		}
		return d.saved(ctx, lease)
	})
}

// saved says whether the VMs of a lease are off with their RAM kept; it asks no coordinator.
func (d *tenant) saved(ctx context.Context, lease site.Lease) error {
	for _, i := range lease.Instances {
		h, err := d.Host(i.Host)
		if err != nil {
			return err
		}
		domain := "hs-" + strings.TrimPrefix(i.Object, "instance/")
		state, err := h.Run(ctx, "virsh", "--connect", "qemu:///system", "domstate", domain)
		if err != nil || strings.TrimSpace(state) != "shut off" {
			return fmt.Errorf("%s is %q, %w", domain, state, err)
		}
		if _, err := os.Stat(filepath.Join(h.Dir, "data", "instances", domain, "ram.saved")); err != nil {
			return err
		}
	}
	return nil
}

// termEnds kills all coordinators: the agents end the lease by themselves at its term, and keep RAM and disk.
func (d *tenant) termEnds(ctx context.Context, t *testing.T) {
	run(ctx, t, d.Site, "lease", "create", "-p", "web", "--vm", "2cpu,128MiB", "--image", "told", "--term", "60s", "--on-preempt", "save", "--wait")
	lease, err := d.Lease(ctx, "web-2")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Answers(ctx, lease); err != nil {
		t.Fatal(err)
	}
	for _, c := range d.Coordinators {
		if err := d.Process(c).Kill(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if time.Now().After(lease.EndsAt) {
		t.Fatalf("the term ended at %v, before the coordinators were killed", lease.EndsAt)
	}
	eventually(ctx, t, phaseLimit, "the agent to end the lease", func(ctx context.Context) error { return d.saved(ctx, lease) })
	if now := time.Now(); now.Before(lease.EndsAt) {
		t.Errorf("it ended %v before its term", lease.EndsAt.Sub(now))
	}
	for _, c := range []*lab.Host{d.Coordinators[0], d.Coordinators[1], d.Coordinators[2]} {
		if err := d.StartCoordinator(c); err != nil {
			t.Fatal(err)
		}
	}
	eventually(ctx, t, phaseLimit, "the lease to be ended", func(ctx context.Context) error {
		now, err := d.Lease(ctx, "web-2")
		if err == nil && now.Phase != "LEASE_PHASE_ENDED" {
			err = fmt.Errorf("it is %s", now.Phase)
		}
		return err
	})
	run(ctx, t, d.Site, "lease", "undelete", "web-2")
	eventually(ctx, t, phaseLimit, "the undeleted lease to answer", func(ctx context.Context) error {
		_, err := d.Answers(ctx, lease)
		return err
	})
}
