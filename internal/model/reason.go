package model

// ErrorDomain is the domain of the google.rpc.ErrorInfo that every error of the API carries.
const ErrorDomain = "hotspare"

// faultReasons gives each fault the reason that ErrorInfo carries. These words are API.
var faultReasons = map[Fault]string{
	FaultInvalid:         "INVALID",
	FaultNotFound:        "NOT_FOUND",
	FaultExists:          "EXISTS",
	FaultStale:           "STALE",
	FaultPrecondition:    "PRECONDITION",
	FaultNoFit:           "NO_FIT",
	FaultQuota:           "QUOTA",
	FaultUnauthenticated: "UNAUTHENTICATED",
	FaultDenied:          "DENIED",
	FaultUnavailable:     "UNAVAILABLE",
	FaultUnsupported:     "UNSUPPORTED",
	FaultTooMany:         "TOO_MANY",
}

// Reason returns the fault's word in ErrorInfo, or "" for a value that is not a fault.
func (f Fault) Reason() string { return faultReasons[f] }

// FaultOfReason returns the fault that a word of ErrorInfo names, or 0.
func FaultOfReason(reason string) Fault {
	for _, f := range Faults() {
		if reason != "" && f.Reason() == reason {
			return f
		}
	}
	return 0
}

// Faults lists every fault, for tables that must be complete.
func Faults() []Fault {
	var out []Fault
	for f := FaultInvalid; f <= FaultTooMany; f++ {
		out = append(out, f)
	}
	return out
}
