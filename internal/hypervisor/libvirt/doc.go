// Package libvirt drives QEMU and KVM through one host's libvirtd, over its unix socket and without
// cgo. The agent's main function makes a Driver; the reconciler calls it by way of package hypervisor.
//
// What it makes of a definition: one persistent domain that is never on autostart and carries our
// metadata, and one directory below StateDir with everything private to it:
//
//	disk-NAME.qcow2   private disks
//	ram.partial       a save under way; nobody may trust it
//	ram.saved         a complete image, durable: the domain is SAVED (the rename is the commit point)
//	ram.restoring     the image while QEMU loads it, with the guest standing still
//	ram.used          the image after that: the guest has run, or may have, so it is never loaded again
//	console.log       the serial console, written and rolled by virtlogd
//
// Empty disks in other local pools of the host are in a directory of the same name below each pool's; pool-NAME in the main
// one says that one is there.
//
// Rules that hold it together:
//
//   - A call that changes a domain runs in a goroutine of its own and on a connection of its own, so
//     that a hung domain blocks neither the caller beyond its context nor any other domain. What the
//     caller gave up on goes on; the next call for that domain waits for it and then looks at the
//     real state. Only a save is aborted with its caller, and Stop may break into a stuck call.
//   - What a killed agent or libvirtd left half done is settled when the domain is next looked at.
//   - It never touches, and never counts as ours, a domain without our metadata.
package libvirt
