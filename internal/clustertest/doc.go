// Package clustertest runs a whole site in one test: the real coordinators (hashicorp/raft over its
// in-memory transport, bbolt logs), real agents with their bbolt journals, real gRPC and HTTPS with
// TLS and real certificates over in-memory connections, and the simulated drivers, inside a
// testing/synctest bubble, so that hours pass in a second.
//
// It holds tests only; nothing imports it. A scenario starts a site, lets things happen and go
// wrong, waits for conditions under virtual time, and ends with the invariants of the design, which
// are checked against what the simulated hosts, storage and fence counted themselves.
//
// How a crash is made. A coordinator: its links (raft, API) are cut at once, and what is left of it
// ends without anybody to talk to; its log keeps what bbolt had synced, at worst with an entry that
// no other member ever saw, as after a real crash. An agent: its links are cut, its driver calls go
// on without it (as libvirtd goes on), and their answers reach nobody; its journal keeps what was
// written. A host: the guests are gone too, its connections end without a word to the other side, and
// its agent comes back with a new boot id.
package clustertest
