package archtest

// exceptions are the places that may break a rule, each with its reason. One that is no longer
// needed makes the test fail.
func exceptions() []exception {
	return []exception{
		{"package-size", "internal/simulation", "one closed system: every part shares the clock, the queue and the random source; only tests call it"},
		{"package-size", "internal/placement/proof", "one search: index, board, patterns and bounds work on the same numbers; outside it only Prove and Assign are called"},
		{"interface-size", "internal/coordinator/state/demand.State", "what is read of the replicated state; the state itself cannot be imported, since apply reads it so, too"},
		{"interface-size", "internal/coordinator/rpc.Site", "the coordinator as its handlers see it: state, live view, propose, verify and who is who"},
	}
}
