// Package sim is a hypervisor host in memory. It runs VMs that cost only a record: each has a boot
// id and a counter that goes up while the guest runs and that survives save and restore, so that a
// test can prove that RAM was kept. The agents of the cluster tests and of `hotspare dev` use it as
// their hypervisor driver.
//
// A Host outlives the agent that drives it: tests kill the agent and hand the same Host to the next
// one. It keeps physical limits (memory, room for saved images), takes time for what takes time,
// counts what happened independently of its caller, and fails, hangs or lies on command (Inject).
// Work that was begun goes on in the host after the caller's context has ended, as in libvirtd; only
// a save is aborted with its caller.
//
// It uses plain time and no busy loops, so it works inside a testing/synctest bubble. It must never
// decide anything and never touch a real hypervisor, file or network.
package sim
