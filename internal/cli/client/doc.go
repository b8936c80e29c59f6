// Package client reaches the site's coordinators: it finds out whom to call from flags, environment and
// contexts, makes mutually authenticated connections, and tries every coordinator with the same request
// until one answers or the time is up.
//
// It repeats a call only when nothing but the way to the coordinator was at fault; that is safe because
// each changing request carries a request id. It never decides what a user may do and never prints.
// internal/cli calls it.
package client
