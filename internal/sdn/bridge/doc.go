// Package bridge is the network driver for Linux bridges, isolated with nftables. The agent calls it;
// it works on the network namespace that is the host's, which is the agent's own in production.
//
// A network is one bridge, perhaps with an uplink of the host as a port, and a probe port: one end of
// a veth pair in the bridge, the other with an address of the network in a network namespace of its
// own, so that health is probed from the workload's side and never through the host's stack.
//
// # What is guaranteed
//
// Production networks are plain bridges. Lent and bubble networks are closed: the host's own stack
// neither receives packets from them, nor sends packets to them, nor routes for them. So a machine on
// a closed network reaches no network of another role through this host, no address of the host, and
// nothing that the host could route to, even if somebody turns on forwarding and puts an address on
// every bridge. Frames never pass from one bridge to another by themselves; a port of the host is in
// one bridge only, an uplink that is in another bridge is refused and not taken away, and a bubble
// network has no uplink.
//
// Not covered: what a switch outside does with the frames of two uplinks, a VM with a card in two
// networks (the model refuses it), and ARP answers for the host's addresses, which tell a machine
// that an address exists and let no packet through.
//
// A lent network also has the metadata address, 169.254.169.254, on the far end of its probe port: in the
// probe's namespace, not on the bridge, so that machines reach one port that the agent opens there, and the
// host's own stack stays as closed as it was. Probe port and uplink are isolated from each other, because the
// address is the same on every host. The network's guard, a table of the bridge family, lets only admitted machines
// ask, each by its own port, MAC and address, and answers leave by that port only, whatever the kernel has learned
// from forged frames. Among admitted machines none can speak by another's card or say that it has another's address.
// Not covered: a foreign machine on the bridge can still keep one of ours from its answers, by forged ARP.
//
// # How
//
// One table "inet hotspare" with a set of the closed bridges and three base chains (input, output,
// forward) that drop by that set, each with a counter. A second set holds each bridge paired with
// itself, because with br_netfilter the frames between two ports of one bridge pass the forward chain
// too. The role of the neighbour does not matter, so no rule grows with the number of networks:
// making or removing a network adds or deletes two set elements in one transaction. The rules are in
// place before the bridge exists and leave after it; the table leaves with the last closed network.
// The same by bridge name in the bridge family would need NFT_META_BRI_IIFNAME, which not every
// kernel has.
//
// What is ours is told by tags that the kernel keeps: the alias "hotspare:NETWORK" on links, the
// table's name, and names derived from the network (hsp- and hsb- links, hs-probe- namespaces). A
// bridge cannot be made with its alias in one step, so it is made under a derived name, tagged, and
// renamed; a bridge with the wanted name and without our alias is therefore somebody else's, and is
// refused. Foreign links, tables and namespaces are never changed.
//
// Every change is read back. The tests send traffic: TCP and ping between machines on a host that is
// set up to route everything, with the rules and, to see the test fail, without.
package bridge
