package archtest

// exceptions are the places that may break a rule, each with its reason. One that is no longer
// needed makes the test fail.
func exceptions() []exception {
	return []exception{}
}
