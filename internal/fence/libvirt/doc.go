// Package libvirt is the fence driver "power" for an old side whose machines run under libvirt: it
// destroys the domains through the old hypervisor's own libvirtd and looks whether they are off. The
// protected-site agent or a gateway agent calls it.
//
// A domain is off when libvirt reports it shut off and will not start it by itself (autostart). Every
// other state, paused, crashed or being shut down too, is not off: a QEMU process may live and write.
// A domain that libvirt does not know is off only if this fence destroyed it before (a transient domain
// vanishes with its process); otherwise the name may be a mistake, or the domain may run on another
// host. A libvirtd that knows no domain at all proves nothing. An unreachable libvirtd is an error and
// never a fence.
//
// What was done is kept in one file for each target in the state directory, written and synced before
// the first domain is touched: the epochs that fence the target, since when, what was seen, and which
// domains had autostart, so that the lift of the last fence gives it back. Lift starts nothing. A
// target is FENCED for an epoch only while the file says that this epoch's fence observed it off and a
// new look at libvirtd finds it off still.
//
// It never defines, undefines or starts a domain, and never touches one outside its target.
package libvirt
