package audit

import (
	"fmt"
	"slices"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// loss is one pattern while it is checked.
type loss struct {
	*auditor
	p    *guarantee.Pattern
	lost map[int32]bool
	// scenarios that survive as many losses as this pattern has.
	scenarios uint64
	moved     map[int32]int32
	// load of the hosts that something moved to or from.
	touched map[int32][]guarantee.Vector
}

// survivors are the scenarios that are to survive exactly so many losses of a unit.
func (a *auditor) survivors(u guarantee.Unit, losses int) (out uint64) {
	for n, sc := range a.c.Scenarios {
		if u == guarantee.UnitHost && sc.Hosts == losses || u == guarantee.UnitDomain && sc.FailureDomains == losses {
			out |= 1 << n
		}
	}
	return out
}

func (a *auditor) pattern(p *guarantee.Pattern) error {
	l := &loss{
		auditor: a, p: p, lost: map[int32]bool{}, moved: map[int32]int32{}, touched: map[int32][]guarantee.Vector{},
		scenarios: a.survivors(p.Unit, len(p.Spares)),
	}
	if l.scenarios == 0 {
		return fmt.Errorf("no scenario loses %d of unit %d", len(p.Spares), p.Unit)
	}
	if err := l.spares(); err != nil {
		return err
	}
	if err := l.moves(); err != nil {
		return err
	}
	return l.obligations()
}

// spares checks that the lost hosts are whole units.
func (l *loss) spares() error {
	for _, spare := range l.p.Spares {
		for _, h := range spare {
			if h < 0 || int(h) >= len(l.s.Hosts) || l.lost[h] || l.unitAt[l.p.Unit] == nil {
				return fmt.Errorf("host number %d is lost twice or does not exist", h)
			}
			l.lost[h] = true
		}
		if l.unitOf(spare) == nil {
			return fmt.Errorf("the hosts %v are not lost together", spare)
		}
	}
	return nil
}

func (l *loss) at(w int32) int32 {
	if h, ok := l.moved[w]; ok {
		return h
	}
	return l.c.Witness[w]
}

func (l *loss) moves() error {
	for _, m := range l.p.Moves {
		if m.Workload < 0 || int(m.Workload) >= len(l.s.Workloads) || m.Host < 0 || int(m.Host) >= len(l.s.Hosts) {
			return fmt.Errorf("move of workload %d to host %d", m.Workload, m.Host)
		}
		if _, twice := l.moved[m.Workload]; twice || l.c.Witness[m.Workload] < 0 {
			return fmt.Errorf("%s is moved twice or from nowhere", l.s.Workloads[m.Workload].Name)
		}
		l.moved[m.Workload] = m.Host
		l.carry(l.loadOf(l.c.Witness[m.Workload]), m.Workload, -1)
		l.carry(l.loadOf(m.Host), m.Workload, 1)
	}
	for _, m := range l.p.Moves {
		if err := l.move(m); err != nil {
			return err
		}
		if err := l.within(m.Host, l.touched[m.Host], l.scenarios); err != nil {
			return err
		}
	}
	return l.evacuated()
}

// evacuated checks that nothing that runs in the pattern stays on a lost host.
func (l *loss) evacuated() error {
	for _, spare := range l.p.Spares {
		for _, h := range spare {
			for _, w := range l.on[h] {
				if l.in[w]&l.scenarios != 0 && l.lost[l.at(w)] {
					return fmt.Errorf("%s stays on %s, which is lost", l.s.Workloads[w].Name, l.s.Hosts[h].Name)
				}
			}
		}
	}
	return nil
}

// loadOf is the load of a host in this pattern, to be changed.
func (l *loss) loadOf(h int32) []guarantee.Vector {
	load, ok := l.touched[h]
	if !ok {
		load = l.zero()
		for n := range load {
			copy(load[n], l.load[h][n])
		}
		l.touched[h] = load
	}
	return load
}

// move checks the new place of one workload against everybody else's.
func (l *loss) move(m guarantee.Move) error {
	if err := l.allowed(m.Workload, m.Host, l.lost); err != nil {
		return err
	}
	w := &l.s.Workloads[m.Workload]
	runs := func(o int32) bool { return o != m.Workload && l.in[o]&l.scenarios != 0 && l.at(o) >= 0 }
	for _, g := range w.Apart {
		for _, o := range l.apart[g] {
			if runs(o) && l.place(g, l.at(o)) == l.place(g, m.Host) && (l.stays[m.Workload] != m.Host || l.stays[o] != l.at(o)) {
				return fmt.Errorf("%s and %s keep apart and are on %s", w.Name, l.s.Workloads[o].Name, l.s.Hosts[m.Host].Name)
			}
		}
	}
	for _, o := range l.bound[w.Together] {
		if runs(o) && l.at(o) != m.Host {
			return fmt.Errorf("%s and %s keep together and do not", w.Name, l.s.Workloads[o].Name)
		}
	}
	return nil
}

// obligations checks that each spare is obliged to the block of everything that it may stand in for.
func (l *loss) obligations() error {
	moved := map[int32][]int32{}
	for _, m := range l.p.Moves {
		moved[m.Host] = append(moved[m.Host], m.Workload)
	}
	for _, spare := range l.p.Spares {
		u := l.unitOf(spare)
		for i := range l.units[l.p.Unit] {
			o := &l.units[l.p.Unit][i]
			if l.lost[o.hosts[0]] || !l.dominates(u, o) {
				continue
			}
			for _, b := range o.hosts {
				for _, a := range spare {
					if l.p.Unit == guarantee.UnitDomain && l.kinds[a].shape != l.kinds[b].shape {
						continue
					}
					if err := l.block(a, b, moved[b]); err != nil {
						return fmt.Errorf("in place of %s: %w", l.s.Hosts[b].Name, err)
					}
				}
			}
		}
	}
	return nil
}

// unitOf is the unit that consists of these hosts; nil if there is none.
func (l *loss) unitOf(hosts []int32) *unit {
	if len(hosts) == 0 || l.unitAt[l.p.Unit][hosts[0]] < 0 {
		return nil
	}
	u := &l.units[l.p.Unit][l.unitAt[l.p.Unit][hosts[0]]]
	if !slices.Equal(u.hosts, hosts) {
		return nil
	}
	return u
}

// block checks that spare a is obliged to all that b carries in this pattern.
func (l *loss) block(a, b int32, moved []int32) error {
	load, changed := l.touched[b]
	if !changed {
		load = l.load[b]
	}
	if err := l.within(a, load, l.scenarios); err != nil {
		return err
	}
	for _, ws := range [][]int32{l.on[b], moved} {
		for _, w := range ws {
			if err := l.budget(w, a); err != nil {
				return err
			}
		}
	}
	return nil
}
