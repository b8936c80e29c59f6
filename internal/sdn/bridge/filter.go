package bridge

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

const (
	tableName = "hotspare"
	// closedSet holds the bridges that the host's stack has no part in.
	closedSet = "closed"
	// selfSet holds each of them paired with itself.
	selfSet = "self"
	// ifNameLen is the length of a link's name in a register.
	ifNameLen = 16
	// rulesVersion is in the comment of every rule: rules of another version are made anew.
	rulesVersion = "hotspare 1: "
)

// rule is one rule of the table.
type rule struct {
	comment string
	exprs   []expr.Any
}

// chain is one base chain of the table.
type chain struct {
	name  string
	hook  *nftables.ChainHook
	rules []rule
}

// chains is the whole table, in order.
func chains() []chain {
	return []chain{
		{"input", nftables.ChainHookInput, []rule{
			{"the host takes nothing from a closed network", dropFrom(closedSet)},
		}},
		{"output", nftables.ChainHookOutput, []rule{
			{"the host sends nothing to a closed network", dropTo(closedSet)},
		}},
		{"forward", nftables.ChainHookForward, []rule{
			{"frames within one bridge, seen with br_netfilter", acceptWithin(selfSet)},
			{"the host routes nothing from a closed network", dropFrom(closedSet)},
			{"the host routes nothing to a closed network", dropTo(closedSet)},
		}},
	}
}

func dropFrom(set string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: set},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

func dropTo(set string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: set},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

func acceptWithin(set string) []expr.Any {
	return []expr.Any{
		// Registers 1 and 2 are neighbours of 16 bytes each: together they are the set's key.
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 2},
		&expr.Lookup{SourceRegister: 1, SetName: set},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

func (r rule) userData() []byte {
	return userdata.AppendString(nil, userdata.TypeComment, rulesVersion+r.comment)
}

// filterState is what was read of the table.
type filterState struct {
	// exists: there is a table; complete: with all its sets, chains and rules.
	exists, complete bool
	// closed holds the bridges that are in both sets.
	closed map[string]bool
}

func (d *Driver) filterConn() (*nftables.Conn, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(int(d.host)))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return conn, nil
}

// readFilter reads the table.
func readFilter(conn *nftables.Conn) (filterState, error) {
	state := filterState{closed: map[string]bool{}}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return state, fmt.Errorf("list filter tables: %w", err)
	}
	at := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName })
	if at < 0 {
		return state, nil
	}
	state.exists = true
	elements := map[string]map[string]bool{}
	sets, err := conn.GetSets(tables[at])
	if err != nil {
		return state, fmt.Errorf("list sets of table %s: %w", tableName, err)
	}
	for _, s := range sets {
		found, err := conn.GetSetElements(s)
		if err != nil {
			return state, fmt.Errorf("list set %s of table %s: %w", s.Name, tableName, err)
		}
		elements[s.Name] = map[string]bool{}
		for _, e := range found {
			elements[s.Name][string(e.Key)] = true
		}
	}
	for key := range elements[closedSet] {
		name := strings.TrimRight(key, "\x00")
		if elements[selfSet][string(selfKey(name))] {
			state.closed[name] = true
		}
	}
	same, err := sameChains(conn, tables[at], chains())
	if err != nil {
		return state, err
	}
	state.complete = same && elements[closedSet] != nil && elements[selfSet] != nil &&
		len(elements[closedSet]) == len(state.closed) && len(elements[selfSet]) == len(state.closed)
	return state, nil
}

// sameChains reports whether the table has exactly these chains and rules, told by their comments.
func sameChains(conn *nftables.Conn, table *nftables.Table, want []chain) (bool, error) {
	all, err := conn.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return false, fmt.Errorf("list filter chains: %w", err)
	}
	found := map[string]*nftables.Chain{}
	for _, c := range all {
		if c.Table.Name == table.Name {
			found[c.Name] = c
		}
	}
	if len(found) != len(want) {
		return false, nil
	}
	for _, w := range want {
		c := found[w.name]
		if c == nil || c.Hooknum == nil || *c.Hooknum != *w.hook {
			return false, nil
		}
		rules, err := conn.GetRules(table, c)
		if err != nil {
			return false, fmt.Errorf("list rules of chain %s: %w", w.name, err)
		}
		same := slices.EqualFunc(rules, w.rules, func(r *nftables.Rule, w rule) bool {
			return string(r.UserData) == string(w.userData())
		})
		if !same {
			return false, nil
		}
	}
	return true, nil
}

// verifyFilter checks that the network is closed if it must be, and open if not.
func (d *Driver) verifyFilter(n network) error {
	conn, err := d.filterConn()
	if err != nil {
		return err
	}
	state, err := readFilter(conn)
	if err != nil {
		return err
	}
	if n.closed && (!state.complete || !state.closed[n.bridge]) {
		return incomplete("bridge %s is not isolated", n.bridge)
	}
	if !n.closed && state.closed[n.bridge] {
		return incomplete("bridge %s is isolated and should not be", n.bridge)
	}
	return nil
}

// filter closes or opens the network's bridge.
func (d *Driver) filter(_ context.Context, n network) error {
	return d.setClosed(n.bridge, n.closed)
}

// setClosed makes a bridge closed or not, in one transaction, and reads it back.
func (d *Driver) setClosed(bridge string, closed bool) error {
	conn, err := d.filterConn()
	if err != nil {
		return err
	}
	state, err := readFilter(conn)
	if err != nil {
		return err
	}
	if state.closed[bridge] == closed && (state.complete || !closed) {
		return nil
	}
	want := maps.Clone(state.closed)
	if closed {
		want[bridge] = true
	} else {
		delete(want, bridge)
	}
	if err := replaceFilter(conn, state, bridge, want); err != nil {
		return fmt.Errorf("change filter table %s for bridge %s: %w", tableName, bridge, err)
	}
	after, err := readFilter(conn)
	if err != nil {
		return err
	}
	if !maps.Equal(after.closed, want) || after.complete != (len(want) > 0) {
		return fmt.Errorf("change filter table %s for bridge %s: accepted and not applied", tableName, bridge)
	}
	return nil
}

// replaceFilter sends one transaction that leads from the state read to the bridges wanted.
func replaceFilter(conn *nftables.Conn, state filterState, bridge string, want map[string]bool) error {
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	switch {
	case len(want) == 0:
		conn.DelTable(table)
	case state.complete:
		change := conn.SetAddElements
		if !want[bridge] {
			change = conn.SetDeleteElements
		}
		for _, s := range newSets(table) {
			if err := change(s, elements(s, []string{bridge})); err != nil {
				return err
			}
		}
	default:
		if state.exists {
			conn.DelTable(table)
		}
		if err := buildTable(conn, table, slices.Sorted(maps.Keys(want))); err != nil {
			return err
		}
	}
	return conn.Flush()
}

// buildTable adds the whole table to the transaction.
func buildTable(conn *nftables.Conn, table *nftables.Table, bridges []string) error {
	conn.AddTable(table)
	for _, s := range newSets(table) {
		if err := conn.AddSet(s, elements(s, bridges)); err != nil {
			return err
		}
	}
	addChains(conn, table, nftables.ChainPriorityFilter, chains())
	return nil
}

// addChains adds base chains with their rules to the transaction.
func addChains(conn *nftables.Conn, table *nftables.Table, priority *nftables.ChainPriority, all []chain) {
	accept := nftables.ChainPolicyAccept
	for _, c := range all {
		made := conn.AddChain(&nftables.Chain{
			Name: c.name, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: c.hook, Priority: priority, Policy: &accept,
		})
		for _, r := range c.rules {
			conn.AddRule(&nftables.Rule{Table: table, Chain: made, Exprs: r.exprs, UserData: r.userData()})
		}
	}
}

func newSets(table *nftables.Table) []*nftables.Set {
	return []*nftables.Set{
		{Table: table, Name: closedSet, KeyType: nftables.TypeIFName},
		{
			Table: table, Name: selfSet, Concatenation: true,
			KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName),
		},
	}
}

func elements(s *nftables.Set, bridges []string) []nftables.SetElement {
	var out []nftables.SetElement
	for _, b := range bridges {
		key := selfKey(b)
		if s.Name == closedSet {
			key = key[:ifNameLen]
		}
		out = append(out, nftables.SetElement{Key: key})
	}
	return out
}

// selfKey is a name twice, each padded with zeros to the length of a register.
func selfKey(name string) []byte {
	key := make([]byte, 2*ifNameLen)
	copy(key, name)
	copy(key[ifNameLen:], name)
	return key
}
