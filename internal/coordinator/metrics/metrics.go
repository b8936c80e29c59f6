// Package metrics shows monitoring systems what a coordinator knows: in Prometheus' format, with base units in the
// names, and without names of hosts, leases or users. It reads the state when it is asked, decides nothing, and
// keeps only what is counted. The HTTPS server calls it; the handlers of leases and the loop that proves count.
package metrics

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/readiness"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// Site is the coordinator that is shown.
type Site interface {
	State() *state.State
	Live() live.View
	Leads() bool
}

// Metrics are those of one coordinator.
type Metrics struct {
	registry *prometheus.Registry
	refusals *prometheus.CounterVec
	proofs   prometheus.Histogram
}

// New registers the metrics of a coordinator.
func New(site Site) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotspare_lease_refusals_total", Help: "Leases that this coordinator refused while it led, by reason.",
		}, []string{"reason"}),
		proofs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hotspare_proof_duration_seconds", Help: "Time that a proof of the guarantee took while this coordinator led.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 10, 6),
		}),
	}
	m.registry.MustRegister(m.refusals, m.proofs, newCollector(site))
	return m
}

// Refused counts a lease that was refused for a reason that is no fault of the site's.
func (m *Metrics) Refused(fault model.Fault) { m.refusals.WithLabelValues(fault.Reason()).Inc() }

// Proved counts a proof that the site needed.
func (m *Metrics) Proved(took time.Duration) { m.proofs.Observe(took.Seconds()) }

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// described are the metrics that are read when somebody asks.
func described() []struct{ name, help, label string } {
	return []struct{ name, help, label string }{
		{"leads", "1 if this coordinator leads.", ""},
		{"guarantee_losses_to_survive", "Losses that the declared scenarios are to survive.", ""},
		{"guarantee_losses_proven", "Losses that are proven to be survived; -1: the plans do not fit at all.", ""},
		{"guarantee_since_timestamp_seconds", "Since when the coordinators agree on the guarantee.", ""},
		{"guarantee_proven_timestamp_seconds", "When the proof that is kept was made: the site has not changed since in what it rests on, or a new one is on its way.", ""},
		{"guarantee_margin_vcpus", "Virtual CPUs of usable hosts that no plan needs, whatever is lost.", ""},
		{"guarantee_margin_bytes", "Memory of usable hosts that no plan needs, whatever is lost.", ""},
		{"guarantee_margin_local_disk_bytes", "Local disk of usable hosts that no plan needs, whatever is lost, lent or not.", ""},
		{"guarantee_margin_local_pool_bytes", "Bytes in other local pools of usable hosts that no plan needs, whatever is lost, lent or not.", "pool"},
		{"guarantee_margin_devices", "Devices of usable hosts that no plan needs, whatever is lost, lent or not.", "device"},
		{"hosts_at_risk", "Hosts whose leases could not be taken back as fast as the plans need.", ""},
		{"plans", "Recovery plans, by whether they could be run now.", "ready"},
		{"agents", "Agents, by whether they are connected to the leader.", "connected"},
		{"leases", "Leases, by phase.", "phase"},
		{"leases_queued", "Leases that wait for room, for quota or for their time, by project.", "project"},
		{"failovers_open", "Failovers that are open.", ""},
		{"drains_open", "Hosts that are being drained, or are drained.", ""},
		{"alarms", "Alarms that the status shows.", ""},
		{entries, "Entries of the evidence log.", ""},
	}
}

// entries is the only one of them that counts.
const entries = "evidence_entries_total"

// collector reads the state of the site when it is asked.
type collector struct {
	site  Site
	descs map[string]*prometheus.Desc
}

func newCollector(site Site) *collector {
	c := &collector{site: site, descs: map[string]*prometheus.Desc{}}
	for _, d := range described() {
		var labels []string
		if d.label != "" {
			labels = []string{d.label}
		}
		c.descs[d.name] = prometheus.NewDesc("hotspare_"+d.name, d.help, labels, nil)
	}
	return c
}

// Describe names what Collect gives.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs { // Any order: the registry sorts.
		out <- d
	}
}

// Collect reads everything from one version of the state. What is judged by what agents report comes from the
// leader only: the others know nothing of them.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.site.State()
	gauge := func(name string, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(c.descs[name], prometheus.GaugeValue, value, labels...)
	}
	if g := s.Guarantee(); g != nil {
		gauge("guarantee_losses_to_survive", float64(g.GetAsked()))
		gauge("guarantee_losses_proven", float64(g.GetProven()))
		gauge("guarantee_since_timestamp_seconds", float64(g.GetSince().AsTime().Unix()))
		if g.GetProvenAt() != nil { // One of an earlier version does not say.
			gauge("guarantee_proven_timestamp_seconds", float64(g.GetProvenAt().AsTime().Unix()))
		}
	}
	phases, queued := map[pb.LeasePhase]float64{}, map[string]float64{}
	for r := range s.Resources("project") {
		queued[r.GetProject().GetMetadata().GetName()] = 0 // One that nothing waits for is zero, not absent.
	}
	for l := range s.Leases() {
		phases[l.GetPhase()]++
		if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_QUEUED {
			queued[l.GetProject()]++
		}
	}
	for project, n := range queued { // Any order: the registry sorts.
		gauge("leases_queued", n, project)
	}
	for number, name := range pb.LeasePhase_name { // Any order: the registry sorts.
		if phase := pb.LeasePhase(number); phase != pb.LeasePhase_LEASE_PHASE_UNSPECIFIED {
			gauge("leases", phases[phase], strings.ToLower(strings.TrimPrefix(name, "LEASE_PHASE_")))
		}
	}
	runs := map[pb.RunKind]float64{}
	for f := range s.OpenFailovers() {
		runs[f.GetRun()]++
	}
	gauge("failovers_open", runs[pb.RunKind_RUN_KIND_FAILOVER])
	gauge("drains_open", runs[pb.RunKind_RUN_KIND_DRAIN])
	out <- prometheus.MustNewConstMetric(c.descs[entries], prometheus.CounterValue, float64(s.Meta().GetEvidenceSequence()))
	if !c.site.Leads() {
		gauge("leads", 0)
		return
	}
	gauge("leads", 1)
	judged(s, c.site.Live(), gauge)
}

// judged gives what depends on what agents report.
func judged(s *state.State, v live.View, gauge func(name string, value float64, labels ...string)) {
	_, _, d := readiness.Guarantee(s, v)
	for _, m := range readiness.Margins(s, v, d) {
		free := float64(max(m.GetTotal()-m.GetObliged(), 0))
		switch m.GetDimension() {
		case guarantee.VCPUs:
			gauge("guarantee_margin_vcpus", free/guarantee.Milli)
		case guarantee.Memory:
			gauge("guarantee_margin_bytes", free)
		case guarantee.LocalDisk:
			gauge("guarantee_margin_local_disk_bytes", free)
		default:
			if pool, is := strings.CutPrefix(m.GetDimension(), guarantee.DiskPrefix); is {
				gauge("guarantee_margin_local_pool_bytes", free, pool)
			} else {
				gauge("guarantee_margin_devices", free, strings.TrimPrefix(m.GetDimension(), guarantee.DevicePrefix))
			}
		}
	}
	gauge("hosts_at_risk", float64(len(readiness.Risks(s, v))))
	plans, connected := map[bool]float64{}, map[bool]float64{}
	for p := range s.Plans() {
		plans[readiness.Plan(s, v, p, d).GetReady()]++
	}
	for h := range s.Hosts() {
		connected[v.Agent(h.GetName()).Connected]++
	}
	for _, yes := range []bool{true, false} {
		gauge("plans", plans[yes], strconv.FormatBool(yes))
		gauge("agents", connected[yes], strconv.FormatBool(yes))
	}
	gauge("alarms", float64(len(readiness.Alarms(s, v))))
}
