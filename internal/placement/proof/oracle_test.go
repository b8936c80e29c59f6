package proof_test

import (
	"slices"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// The oracle answers by the definition alone: for each scenario and each loss it tries every
// placement. It shares nothing with the search or the audit.
type oracle struct {
	s  *guarantee.Site
	sc guarantee.Scenario
	// lost hosts by name
	lost map[string]bool
	at   map[int]string
}

// oracleFits says whether each scenario survives its losses.
func oracleFits(s *guarantee.Site, scenarios []guarantee.Scenario) bool {
	for _, sc := range scenarios {
		if !oracleSurvives(s, sc) {
			return false
		}
	}
	return true
}

func oracleSurvives(s *guarantee.Site, sc guarantee.Scenario) bool {
	runs := slices.ContainsFunc(s.Workloads, func(w guarantee.Workload) bool { return sc.Covers(w.Plan) || oracleHome(s, w) != "" })
	if !runs {
		return true
	}
	var hosts, domains [][]string
	for _, h := range s.Hosts {
		carries := slices.ContainsFunc(s.Workloads, func(w guarantee.Workload) bool { return w.Host == h.Name })
		if h.State == guarantee.Lost || h.State != guarantee.Usable && !carries {
			continue // Losing it changes nothing.
		}
		hosts = append(hosts, []string{h.Name})
		i := slices.IndexFunc(domains, func(d []string) bool {
			return h.FailureDomain != "" && domainOf(s, d[0]) == h.FailureDomain
		})
		if i < 0 {
			domains = append(domains, []string{h.Name})
		} else {
			domains[i] = append(domains[i], h.Name)
		}
	}
	return oracleLosing(s, sc, hosts, sc.Hosts, nil) && oracleLosing(s, sc, domains, sc.FailureDomains, nil)
}

// oracleLosing tries every loss of so many units.
func oracleLosing(s *guarantee.Site, sc guarantee.Scenario, units [][]string, k int, lost []string) bool {
	if k == 0 {
		o := &oracle{s: s, sc: sc, lost: map[string]bool{}, at: map[int]string{}}
		for _, h := range lost {
			o.lost[h] = true
		}
		return o.try(0)
	}
	if len(units) < k {
		return false
	}
	for i := range units {
		if !oracleLosing(s, sc, units[i+1:], k-1, slices.Concat(lost, units[i])) {
			return false
		}
		if len(units)-i-1 < k {
			break
		}
	}
	return true
}

func domainOf(s *guarantee.Site, host string) string { return hostOf(s, host).FailureDomain }

func hostOf(s *guarantee.Site, host string) *guarantee.Host {
	i := slices.IndexFunc(s.Hosts, func(h guarantee.Host) bool { return h.Name == host })
	if i < 0 {
		return nil
	}
	return &s.Hosts[i]
}

// oracleHome is the host on which a workload runs and that is there; empty: it is free.
func oracleHome(s *guarantee.Site, w guarantee.Workload) string {
	if h := hostOf(s, w.Host); h == nil || h.State == guarantee.Lost {
		return ""
	}
	return w.Host
}

// stays is where a workload has to stay with these losses.
func (o *oracle) stays(w guarantee.Workload) string {
	if home := oracleHome(o.s, w); !o.lost[home] {
		return home
	}
	return ""
}

func (o *oracle) try(i int) bool {
	if i == len(o.s.Workloads) {
		return o.correct()
	}
	w := o.s.Workloads[i]
	if !o.sc.Covers(w.Plan) && oracleHome(o.s, w) == "" {
		return o.try(i + 1)
	}
	for _, h := range o.s.Hosts {
		if stays := o.stays(w); stays != "" && stays != h.Name || stays == "" && (o.lost[h.Name] || !o.suits(w, h)) {
			continue
		}
		o.at[i] = h.Name
		if o.room(h) && o.try(i+1) {
			return true
		}
		delete(o.at, i)
	}
	return false
}

func (o *oracle) suits(w guarantee.Workload, h guarantee.Host) bool {
	has := func(want, have []string) bool {
		return !slices.ContainsFunc(want, func(x string) bool { return !slices.Contains(have, x) })
	}
	return h.State == guarantee.Usable && has(w.Labels, h.Labels) && has(w.Networks, h.Networks) && has(w.Pools, h.Pools)
}

// room says whether what was placed on a host so far fits.
func (o *oracle) room(h guarantee.Host) bool {
	for d := range o.s.Dimensions {
		var sum, firm int64
		for i, at := range o.at {
			if at == h.Name {
				sum += o.s.Workloads[i].Demand[d]
			}
		}
		for _, f := range o.s.Firm {
			if f.Host == h.Name {
				firm += f.Demand[d]
			}
		}
		if sum > 0 && sum+firm+h.Lending.At(d) > h.Capacity[d] {
			return false
		}
	}
	return true
}

// correct checks what holds between workloads.
func (o *oracle) correct() bool {
	for i, at := range o.at {
		for j, other := range o.at {
			if i >= j {
				continue
			}
			v, w := o.s.Workloads[i], o.s.Workloads[j]
			fact := o.stays(v) != "" && o.stays(w) != ""
			if !fact && o.close(v, w, at, other) {
				return false
			}
			if v.Together != "" && v.Together == w.Together && at != other && !o.split(v.Together) {
				return false
			}
		}
	}
	return true
}

func (o *oracle) close(v, w guarantee.Workload, a, b string) bool {
	for _, g := range v.Apart {
		if slices.Contains(w.Apart, g) && (a == b || g.Domain && domainOf(o.s, a) != "" && domainOf(o.s, a) == domainOf(o.s, b)) {
			return true
		}
	}
	return false
}

// split says whether a unit runs on several hosts already: then it binds no more.
func (o *oracle) split(unit string) bool {
	first := ""
	for _, w := range o.s.Workloads {
		if w.Together != unit {
			continue
		}
		switch home := oracleHome(o.s, w); {
		case home == "" || home == first:
		case first == "":
			first = home
		default:
			return true
		}
	}
	return false
}
