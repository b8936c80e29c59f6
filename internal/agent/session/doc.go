// Package session is an agent's end of its streams to the coordinators. It keeps one warm stream to
// each of them, follows the one that leads with the highest (era, term) it has seen, hands its orders
// and permits to the agent, and sends statuses and heartbeats to it.
//
// It decides nothing about objects and keeps nothing over a restart. Orders and permits of a stream
// whose coordinator does not lead, or leads in an older term, are ignored; that stream is held open,
// because it may lead later. Package agent calls it.
package session
