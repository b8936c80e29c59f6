// Package model holds the rules of the domain that need no I/O: identifiers, the kinds of
// objects with their states and transitions, the phases of runs, validation of what users
// declare, and the errors that every layer tells apart.
//
// It decides what is well formed and what may follow what. It never reads a clock, a file, the
// network or a random source. The coordinator, the agents, the planners and the CLI all call it,
// so that a rule stands in one place.
package model
