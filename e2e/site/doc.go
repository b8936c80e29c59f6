// Package site is a whole hotspare site on one machine, made of real parts in the hosts of a lab
// (package lab): three coordinators, two hypervisor hosts, a storage host, a gateway with the
// power fence and the DNS zone, a protected site with one production VM that is
// replicated, a name server, a monitoring system and a client.
//
//	c1 c2 c3   hotspare-coordinator                 h1 h2   libvirtd, hotspare-agent
//	store      hotspare-agent, pool west            gw      hotspare-agent, fence and zone
//	east       libvirtd, production VM, hotspare-agent (source)
//	dns        Knot                                 mon     Prometheus, Alertmanager
//	client     the command line tool, with a client certificate
//
// The product is only run, through its programs, configuration files and command line; nothing under
// internal/ is imported, so that what the package reports is an observation from outside. The
// end-to-end tests and `make demo` call it.
package site
