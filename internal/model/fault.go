package model

import (
	"errors"
	"fmt"
)

// Fault tells errors apart by what the caller can do about them. One table in the rpc package turns
// each into a gRPC code, and one in the CLI into an exit code.
type Fault int

// The faults. The zero value is not a fault.
const (
	// FaultInvalid: the request itself is wrong; sending it again cannot help.
	FaultInvalid Fault = iota + 1
	// FaultNotFound: what the request names does not exist.
	FaultNotFound
	// FaultExists: what the request would create exists and differs.
	FaultExists
	// FaultStale: something changed since it was read; read again and decide again.
	FaultStale
	// FaultPrecondition: the state does not allow it; the message says what would.
	FaultPrecondition
	// FaultNoFit: there is no room, or the guarantee would not hold.
	FaultNoFit
	// FaultQuota: the project's quota does not allow it.
	FaultQuota
	// FaultUnauthenticated: nobody knows who asks.
	FaultUnauthenticated
	// FaultDenied: who asks may not do this.
	FaultDenied
	// FaultUnavailable: no leader, or no contact; try again.
	FaultUnavailable
	// FaultUnsupported: this driver or this level cannot do it.
	FaultUnsupported
	// FaultTooMany: a bound was reached; wait and try again.
	FaultTooMany
)

// Error is an error that a user sees: what is wrong, with which object, and what to do.
type Error struct {
	Fault Fault
	// Object is what the error is about, for example "lease/web-3"; may be empty.
	Object string
	// What happened, lower case, without the object's name.
	What string
	// Remedy says what to do next; may be empty.
	Remedy string
	// Err is the cause; may be nil.
	Err error
}

// Error joins object, what happened, cause and remedy in one line.
func (e *Error) Error() string {
	s := e.What
	if e.Object != "" {
		s = e.Object + ": " + s
	}
	if e.Err != nil {
		s = fmt.Sprintf("%s: %v", s, e.Err)
	}
	if e.Remedy != "" {
		s += " (" + e.Remedy + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of one fault about one object.
func Errorf(f Fault, object, format string, args ...any) *Error {
	return &Error{Fault: f, Object: object, What: fmt.Sprintf(format, args...)}
}

// WithRemedy returns a copy that says what to do.
func (e *Error) WithRemedy(format string, args ...any) *Error {
	c := *e
	c.Remedy = fmt.Sprintf(format, args...)
	return &c
}

// FaultOf returns the fault of the first Error in the chain, or 0.
func FaultOf(err error) Fault {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Fault
	}
	return 0
}
