// Package dns is the endpoint driver for DNS records that are changed by signed updates (RFC 2136,
// TSIG) at the zone's authoritative server. The gateway agent calls it.
//
// Every change is a compare-and-set in one message: the prerequisite names the exact records that
// were read (or that there were none), so a change by somebody else between our reading and our
// update makes the server refuse it. After every change, and after every answer that was lost, the
// records are read back from the same server; only what was read counts. It never overwrites a value
// that is neither ours nor the committed pre-image, never asks a resolver, and never writes a zone
// file.
//
// Limits. Types A, AAAA, CNAME and TXT. A server answers a name that does not exist from a wildcard;
// such a name looks as if it existed, and its first change ends in a conflict. Resolvers go on
// answering the old value until its TTL has passed; no server can change that.
package dns
