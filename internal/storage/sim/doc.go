// Package sim is storage in memory: pools that receive, promote and clone volumes, and sites whose
// running VMs write to disks that are mirrored into those pools. The cluster tests and `hotspare dev`
// use it in place of the qcow2 and mirror drivers.
//
// A World holds pools and sites and outlives the agents that drive them: tests kill an agent and
// hand the same Pool or Site to the next one. The content of a disk is a growing number of records,
// so that "how much was lost" is a subtraction. What happened (promotions, mirrors) is counted
// independently of the callers. Drivers fail, hang or lie on command (Inject).
//
// It uses plain time and no busy loops, so it works inside a testing/synctest bubble. It must never
// decide anything and never touch a real file or network.
package sim
