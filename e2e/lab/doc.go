// Package lab puts several "hosts" on one machine for the tests against real parts and
// the end-to-end tests. A host is a network namespace and a mount namespace, held by
// a small process, with its own /run, its own libvirt directories and, when asked for,
// its own virtlogd and libvirtd. Hosts are joined by bridges in a fabric namespace
// of the lab; the machine's own network is never touched.
//
//	<lab>-fabric:  s-mgmt (10.77.0.1/24)   s-<segment> ...
//	                 |        |               |
//	<lab>-h1: mgmt0 10.77.0.11  <lab>-h2: mgmt0 10.77.0.12, uplinks as attached
//
// The package starts and stops real programs, cuts links, and takes an inventory of
// what exists. It must never use product code (nothing under internal/ or cmd/): it is the
// independent witness of what the product did, and residue would hide behind a shared mistake.
//
// Everything a lab makes carries the lab's name and is noted below /run/hotspare-lab
// before it is made, so that CleanStale can remove what a killed test left behind.
// It kills only processes that live in the namespaces of that lab.
package lab
