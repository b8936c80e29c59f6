package bridge

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/sdn"
)

// A guard is the table of one lent network that tells its machines apart. It is in the bridge family, where a
// frame still has its port.
const (
	guardPrefix = "hotspare-"
	// machineSet holds port, MAC and address of each admitted machine; the others are parts of the same keys.
	machineSet = "machines"
	cardSet    = "cards"     // port and MAC
	portSet    = "ports"     // port
	macSet     = "macs"      // MAC
	addressSet = "addresses" // address
)

// guardPriority is "filter" of the bridge family. At 0 and above, what br_netfilter has taken passes a chain by if the
// chain is older than the first bridge.
const guardPriority = -200

// Places in a machine's key, which is three registers: a port's name, a MAC padded to 8 bytes, an IPv4 address.
const (
	keyMAC     = ifNameLen
	keyAddress = keyMAC + 8
	keyLen     = keyAddress + addressBytes

	macBytes, addressBytes = 6, 4
)

// Registers that together are a machine's key.
const (
	regPort    = unix.NFT_REG_1
	regMAC     = unix.NFT_REG_2
	regAddress = unix.NFT_REG32_06
)

// Where frames and packets have what identifies them (IEEE 802.3, RFC 791, RFC 826).
const (
	etherDestination, etherSource = 0, 6
	ipSource, ipDestination       = 12, 16
	arpMAC, arpAddress            = 8, 14
)

// part is a set of the guard and what of a machine's key is in it.
type part struct {
	set *nftables.Set
	of  func(key string) string
}

func guardTable(n network) *nftables.Table {
	return &nftables.Table{Name: guardPrefix + shortHash(n.name), Family: nftables.TableFamilyBridge}
}

func parts(t *nftables.Table) []part {
	concat := nftables.MustConcatSetType
	return []part{
		{
			&nftables.Set{Table: t, Name: machineSet, Concatenation: true, KeyType: concat(nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr)},
			func(k string) string { return k },
		},
		{
			&nftables.Set{Table: t, Name: cardSet, Concatenation: true, KeyType: concat(nftables.TypeIFName, nftables.TypeEtherAddr)},
			func(k string) string { return k[:keyAddress] },
		},
		{&nftables.Set{Table: t, Name: portSet, KeyType: nftables.TypeIFName}, func(k string) string { return k[:keyMAC] }},
		{&nftables.Set{Table: t, Name: macSet, KeyType: nftables.TypeEtherAddr}, func(k string) string { return k[keyMAC : keyMAC+macBytes] }},
		{&nftables.Set{Table: t, Name: addressSet, KeyType: nftables.TypeIPAddr}, func(k string) string { return k[keyAddress:] }},
	}
}

// guardChains are the rules of a network's guard. The first chain sees frames before the bridge learns from them.
func guardChains(n network) []chain {
	toProbe, fromProbe := isPort(expr.MetaKeyOIFNAME, n.port), isPort(expr.MetaKeyIIFNAME, n.port)
	from, to := loadPort(expr.MetaKeyIIFNAME), loadPort(expr.MetaKeyOIFNAME)
	admitted := in(regPort, portSet)
	return []chain{
		{"prerouting", nftables.ChainHookPrerouting, []rule{
			{"no machine speaks by another's card", drop(
				from, admitted, loadMAC(etherSource), in(regMAC, macSet), notIn(cardSet),
			)},
			{"no machine says that it has another's address", drop(
				isProtocol(unix.ETH_P_ARP), from, admitted, load(regMAC, arpMAC, macBytes),
				load(regAddress, arpAddress, addressBytes), in(regAddress, addressSet), notIn(machineSet),
			)},
		}},
		{"forward", nftables.ChainHookForward, []rule{
			// The probe's stack would take a tag off that has hidden the packet from the rules that follow.
			{"no frame with a second tag reaches the probe", drop(toProbe, isProtocol(unix.ETH_P_8021Q))},
			{"no frame with a provider's tag reaches the probe", drop(toProbe, isProtocol(unix.ETH_P_8021AD))},
			{"only admitted machines ask", drop(
				toProbe, isProtocol(unix.ETH_P_IP), isMetadata(ipDestination),
				from, loadMAC(etherSource), load(regAddress, ipSource, addressBytes), notIn(machineSet),
			)},
			{"answers leave by the port of who asked", drop(
				fromProbe, isProtocol(unix.ETH_P_IP), isMetadata(ipSource),
				to, loadMAC(etherDestination), load(regAddress, ipDestination, addressBytes), notIn(machineSet),
			)},
		}},
	}
}

// condition is a part of a rule: the rule goes on if it is met.
type condition = []expr.Any

// drop makes the rule that drops what meets all conditions.
func drop(conditions ...condition) []expr.Any {
	return append(slices.Concat(conditions...), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
}

func loadPort(key expr.MetaKey) condition {
	return condition{&expr.Meta{Key: key, Register: regPort}}
}

// load reads from the packet behind the frame's header, also when the frame has a tag.
func load(register, offset, length uint32) condition {
	return condition{&expr.Payload{
		DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length,
	}}
}

func loadMAC(offset uint32) condition {
	return condition{&expr.Payload{
		DestRegister: regMAC, Base: expr.PayloadBaseLLHeader, Offset: offset, Len: macBytes,
	}}
}

func in(register uint32, set string) condition {
	return condition{&expr.Lookup{SourceRegister: register, SetName: set}}
}

// notIn looks up the key that begins with the port.
func notIn(set string) condition {
	return condition{&expr.Lookup{SourceRegister: regPort, SetName: set, Invert: true}}
}

func isPort(key expr.MetaKey, name string) condition {
	return append(loadPort(key), &expr.Cmp{Op: expr.CmpOpEq, Register: regPort, Data: portKey(name)})
}

// isProtocol looks at what the frame carries, behind a tag.
func isProtocol(number uint16) condition {
	return condition{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: regPort},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regPort, Data: binary.BigEndian.AppendUint16(nil, number)},
	}
}

func isMetadata(offset uint32) condition {
	return append(load(regAddress, offset, addressBytes),
		&expr.Cmp{Op: expr.CmpOpEq, Register: regAddress, Data: metadataPrefix().Addr().AsSlice()})
}

// portKey is a port's name, padded with zeros to the length of a register.
func portKey(name string) []byte {
	key := make([]byte, ifNameLen)
	copy(key, name)
	return key
}

// machineKey is how the kernel tells a machine.
func machineKey(n network, c sdn.Card) (string, error) {
	if len(c.MAC) != macBytes || !c.Address.Is4() {
		return "", fmt.Errorf("card with MAC %q and address %s: want a MAC of 6 bytes and an IPv4 address", c.MAC, c.Address)
	}
	key := make([]byte, keyLen)
	copy(key, model.PortName(n.name, c.MAC.String()))
	copy(key[keyMAC:], c.MAC)
	copy(key[keyAddress:], c.Address.AsSlice())
	return string(key), nil
}

// guardState is what was read of a guard.
type guardState struct {
	// exists: there is a table; complete: with all its sets, chains and rules, and its sets agree.
	exists, complete bool
	machines         map[string]bool
}

func readGuard(conn *nftables.Conn, n network) (guardState, error) {
	state := guardState{machines: map[string]bool{}}
	want := guardTable(n)
	tables, err := conn.ListTablesOfFamily(want.Family)
	if err != nil {
		return state, fmt.Errorf("list filter tables: %w", err)
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == want.Name }) {
		return state, nil
	}
	state.exists = true
	sets, err := conn.GetSets(want)
	if err != nil {
		return state, fmt.Errorf("list sets of table %s: %w", want.Name, err)
	}
	found := map[string]map[string]bool{}
	for _, s := range sets {
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return state, fmt.Errorf("list set %s of table %s: %w", s.Name, want.Name, err)
		}
		found[s.Name] = map[string]bool{}
		for _, e := range elements {
			found[s.Name][string(e.Key)] = true
		}
	}
	for key := range found[machineSet] {
		if len(key) == keyLen {
			state.machines[key] = true
		}
	}
	state.complete = true
	for _, p := range parts(want) {
		if found[p.set.Name] == nil || !maps.Equal(found[p.set.Name], p.elements(state.machines)) {
			state.complete = false
		}
	}
	same, err := sameChains(conn, want, guardChains(n))
	state.complete = state.complete && same
	return state, err
}

// elements are the keys of the set when these machines are admitted.
func (p part) elements(machines map[string]bool) map[string]bool {
	out := map[string]bool{}
	for key := range machines {
		out[p.of(key)] = true
	}
	return out
}

// verifyGuard checks that a network whose machines reach the metadata address tells them apart.
func (d *Driver) verifyGuard(n network) error {
	conn, err := d.filterConn()
	if err != nil {
		return err
	}
	state, err := readGuard(conn, n)
	if err != nil {
		return err
	}
	if n.metadata && !state.complete {
		return incomplete("machines of network %s are not told apart", n.name)
	}
	if !n.metadata && state.exists {
		return incomplete("network %s has a guard and should not", n.name)
	}
	return nil
}

// guard makes what tells the machines apart, or takes it away. A new one admits nobody.
func (d *Driver) guard(_ context.Context, n network) error {
	err := d.verifyGuard(n)
	if err == nil || !errors.Is(err, sdn.ErrNotFound) {
		return err
	}
	if !n.metadata {
		_, err := d.removeGuard(n)
		return err
	}
	// Who listens admits its machines anew.
	d.closeListener(n.name)
	return d.setMachines(n, nil)
}

// setMachines replaces the guard by one that admits these machines, in one transaction, and reads it back.
func (d *Driver) setMachines(n network, machines map[string]bool) error {
	conn, err := d.filterConn()
	if err != nil {
		return err
	}
	before, err := readGuard(conn, n)
	if err != nil {
		return err
	}
	table := guardTable(n)
	if before.exists {
		conn.DelTable(table)
	}
	conn.AddTable(table)
	for _, p := range parts(table) {
		var elements []nftables.SetElement
		for _, key := range slices.Sorted(maps.Keys(p.elements(machines))) {
			elements = append(elements, nftables.SetElement{Key: []byte(key)})
		}
		if err := conn.AddSet(p.set, elements); err != nil {
			return fmt.Errorf("make set %s of table %s: %w", p.set.Name, table.Name, err)
		}
	}
	addChains(conn, table, nftables.ChainPriorityRef(guardPriority), guardChains(n))
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("change filter table %s: %w", table.Name, err)
	}
	after, err := readGuard(conn, n)
	if err != nil {
		return err
	}
	if !after.complete || !maps.Equal(after.machines, machines) {
		return fmt.Errorf("change filter table %s: accepted and not applied", table.Name)
	}
	return nil
}

// removeGuard reports whether there was one.
func (d *Driver) removeGuard(n network) (bool, error) {
	conn, err := d.filterConn()
	if err != nil {
		return false, err
	}
	state, err := readGuard(conn, n)
	if err != nil || !state.exists {
		return false, err
	}
	conn.DelTable(guardTable(n))
	if err := conn.Flush(); err != nil {
		return false, fmt.Errorf("delete filter table %s: %w", guardTable(n).Name, err)
	}
	return true, nil
}

// Admit implements sdn.Metadata.
func (d *Driver) Admit(ctx context.Context, name string, cards []sdn.Card) error {
	n := named(name)
	machines := map[string]bool{}
	for _, c := range cards {
		key, err := machineKey(n, c)
		if err != nil {
			return fmt.Errorf("admit machines on network %s: %w", name, err)
		}
		machines[key] = true
	}
	done, err := d.begin(ctx)
	if err != nil {
		return fmt.Errorf("admit machines on network %s: %w", name, err)
	}
	defer done()
	n.metadata = true
	if err := d.verifyGuard(n); err != nil {
		return fmt.Errorf("admit machines on network %s: %w", name, err)
	}
	if err := d.setMachines(n, machines); err != nil {
		return fmt.Errorf("admit machines on network %s: %w", name, err)
	}
	return nil
}

// Machine implements sdn.Metadata: what the kernel is told now, not what was asked for once.
func (d *Driver) Machine(ctx context.Context, name string, address netip.Addr) (net.HardwareAddr, error) {
	mac, err := d.machine(ctx, named(name), address.Unmap())
	if err != nil {
		return nil, fmt.Errorf("look for the machine with address %s on network %s: %w", address, name, err)
	}
	return mac, nil
}

func (d *Driver) machine(ctx context.Context, n network, address netip.Addr) (net.HardwareAddr, error) {
	done, err := d.begin(ctx) // Half a change would look like a guard that somebody damaged.
	if err != nil {
		return nil, err
	}
	defer done()
	conn, err := d.filterConn()
	if err != nil {
		return nil, err
	}
	state, err := readGuard(conn, n)
	if err != nil {
		return nil, err
	}
	if !state.complete {
		return nil, fmt.Errorf("its machines are not told apart: %w", sdn.ErrConflict)
	}
	var found []net.HardwareAddr
	for _, key := range slices.Sorted(maps.Keys(state.machines)) {
		if key[keyAddress:] == string(address.AsSlice()) {
			found = append(found, net.HardwareAddr(key[keyMAC:keyMAC+macBytes]))
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("nobody is admitted with it: %w", sdn.ErrNotFound)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("machines with MAC %s and %s are admitted with it: %w", found[0], found[1], sdn.ErrConflict)
}
