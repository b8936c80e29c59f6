// Package qcow2 is the storage driver of a pool directory that QEMU's storage daemon serves over
// NBD. The agent on a storage host uses it to receive, promote and clone volumes; the agent at the
// protected site uses it to receive the way back.
//
// Each volume is a folder with layer files (<n>.qcow2) and volume.json. volume.json says what should
// be; it is written before the daemon is made to follow, and every call first makes the daemon follow
// what it says. So a crash of the driver, of the daemon or of the host at any point is repaired by
// the next call, and a repeated call finds its work done.
//
//   - A synchronisation writes to a layer without a base, because a mirror copies everything. The
//     layer of the one before stays until the new one has converged.
//   - A clone freezes the layer that receives: an empty layer above it takes over, the export
//     follows without a gap, and the clone stands on the frozen layer.
//   - A promotion cuts the mirror off and exports an empty layer above the newest consistent one.
//   - A layer stays while an export, the newest point or a clone stands on it, and no longer.
//
// The export of a synchronisation is named storage.SyncExport(volume, n), that of a promoted volume
// or a clone has the volume's name. Replica exports are write-through: what the mirror was told to be
// written is on disk, so that kill -9 of the daemon (which caches qcow2's tables) loses nothing.
//
// One daemon serves a pool. It is a process of its own session which outlives the agent; a driver
// adopts it, starts it again when it died, and ends it when the pool is empty. Because a call to the
// daemon can hang with its storage, a missing answer means unknown.
//
// Handing a disk back: a replica whose spec names a disk (an absolute path on the pool's file
// system) is not exported on promotion. Its newest consistent layer is renamed onto the path, in the
// format of the file that was there, and the VM starts from it as ever. The file that was there is
// kept beside it, with the suffix of keptSuffix, until the volume is removed. Such a volume is never
// cloned. Demoting it leaves the disk to its VM and drops nothing.
//
// The driver decides nothing, and never writes or deletes a layer that something stands on.
package qcow2
