// Package conformance is the proof that every network and endpoint driver, the simulated ones
// included, keeps the promises of package sdn. A driver's own tests call RunNetworks or RunEndpoints
// with a harness that can look at the real thing without the driver's help and play somebody else.
//
// The named cases are exported, so that CI can print a matrix driver × case in which a missing cell
// shows. Only tests import this package.
package conformance
