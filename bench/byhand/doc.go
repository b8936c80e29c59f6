// Package byhand is the opponent of the figures: a failover as somebody would script it by hand who
// knows everything beforehand (names, hosts, the victim, the layer to promote, the guest's
// definition) and wants nothing but speed. It makes the calls that hotspare's drivers make, directly
// over libvirt's RPC, QMP, netlink and DNS, in the best order:
//
//	fence ── promote ─┐
//	save the victim ──┼─ start ── until healthy ── repoint the name
//	network ──────────┤
//	define ───────────┘
//
// Everything on the left begins at once. It keeps no journal, asks nobody, repairs nothing and
// survives nothing; a call that fails ends it. bench/figures runs it between hotspare's own
// failovers, on the same site, and Undo puts everything back. It shares no code with the drivers.
//
// What differs from hotspare's failover, all in the script's favour: it is no process of its own that
// has to start; it runs while hotspare's processes stand still; it takes no pre-image of the name and
// reads nothing back but what its next step needs.
package byhand
