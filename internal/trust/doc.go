// Package trust decides who somebody is and what they may do: it signs certificates for coordinators,
// agents and users, builds the TLS configurations in which each side checks the other's role, reads the
// identity behind a call, and holds the table of which role may call what.
//
// Identities are URI names in certificates of the site's own authority:
//
//	hotspare://site/coordinator/<name>
//	hotspare://site/agent/<name>
//	hotspare://site/user/<role>/<name>      role: developer, operator or monitor
//
// A certificate with another URI of this scheme, or with two, has no identity and is refused. TLS is 1.3
// everywhere. The role is checked in both directions, because all certificates come from one authority:
// without that an agent could speak as a coordinator (P10).
//
// It never stores the authority (the coordinators keep it in the replicated state), never reads a clock of
// its own, and decides nothing about a single lease or plan: that is the business of the rpc package.
// Coordinator, agent and CLI call it. The subpackages evidence and token are pure.
package trust
