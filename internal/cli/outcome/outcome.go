// Package outcome turns errors into what scripts and people get: the exit code and the message.
//
// It holds the one table from the coordinator's answers to exit codes, which are API. It decides nothing
// else and writes nothing. internal/cli calls it.
package outcome

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hotspare/hotspare/internal/cli/client"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/strictyaml"
)

// The exit codes. They are API.
const (
	// OK: done; also a repeat of the same request.
	OK = 0
	// Failed: failed; also a watch that ends incomplete.
	Failed = 1
	// Usage: the command line or a manifest is wrong.
	Usage = 2
	// NoCoordinator: no coordinator reachable, or no leader.
	NoCoordinator = 3
	// Denied: not authenticated or not allowed.
	Denied = 4
	// GoesOn: timed out while the operation goes on.
	GoesOn = 5
	// Conflict: a conflict or a precondition.
	Conflict = 6
	// NoFit: it does not fit, is not proven, or exceeds a quota.
	NoFit = 7
	// Interrupted: by SIGINT.
	Interrupted = 130
)

// faultExits is the table from what the coordinator answers to the exit code.
var faultExits = map[model.Fault]int{
	model.FaultInvalid:         Usage,
	model.FaultNotFound:        Failed,
	model.FaultExists:          Conflict,
	model.FaultStale:           Conflict,
	model.FaultPrecondition:    Conflict,
	model.FaultNoFit:           NoFit,
	model.FaultQuota:           NoFit,
	model.FaultUnauthenticated: Denied,
	model.FaultDenied:          Denied,
	model.FaultUnavailable:     NoCoordinator,
	model.FaultUnsupported:     Failed,
	model.FaultTooMany:         Failed,
}

// codeExits serves answers without our ErrorInfo: from gRPC itself, or from something in between.
var codeExits = map[codes.Code]int{
	codes.Canceled:           Interrupted,
	codes.InvalidArgument:    Usage,
	codes.OutOfRange:         Usage,
	codes.AlreadyExists:      Conflict,
	codes.Aborted:            Conflict,
	codes.FailedPrecondition: Conflict,
	codes.PermissionDenied:   Denied,
	codes.Unauthenticated:    Denied,
	codes.Unavailable:        NoCoordinator,
	codes.DeadlineExceeded:   NoCoordinator,
}

// exitError carries its own exit code.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

// Exitf makes an error that ends the command with an exit code.
func Exitf(code int, format string, args ...any) error {
	return &exitError{code, fmt.Sprintf(format, args...)}
}

// Usagef makes an error about the command line.
func Usagef(format string, args ...any) error { return Exitf(Usage, format, args...) }

// IsUsage says whether an error is about the command line or a manifest.
func IsUsage(err error) bool { return Code(err) == Usage }

// Code returns the exit code for an error.
func Code(err error) int {
	var coded *exitError
	var manifest *strictyaml.Error
	var silent *client.NoAnswerError
	var identity *client.IdentityError
	switch {
	case err == nil:
		return OK
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &manifest):
		return Usage
	case errors.As(err, &identity):
		return Denied
	case errors.As(err, &silent):
		return NoCoordinator
	case errors.Is(err, context.Canceled):
		return Interrupted
	}
	st, ok := status.FromError(err)
	if !ok {
		return Failed
	}
	if code, ok := faultExits[model.FaultOfReason(reasonOf(st))]; ok {
		return code
	}
	if code, ok := codeExits[st.Code()]; ok {
		return code
	}
	return Failed
}

// reasonOf returns the reason in our ErrorInfo, or "".
func reasonOf(st *status.Status) string {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == model.ErrorDomain {
			return info.GetReason()
		}
	}
	return ""
}

// Violation is one wrong field of a request.
type Violation struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// Report is an error as -o json shows it; its keys are API.
type Report struct {
	ExitCode   int         `json:"exitCode"`
	Reason     string      `json:"reason,omitempty"`
	Message    string      `json:"message"`
	Violations []Violation `json:"violations,omitempty"`
	// RequestID repeats the request safely when its outcome is unknown.
	RequestID string `json:"requestId,omitempty"`
}

// NewReport describes an error. The request id, empty for reads, is kept only where the outcome of the
// request is unknown.
func NewReport(err error, requestID string) Report {
	r := Report{ExitCode: Code(err), Message: err.Error()}
	if r.ExitCode == NoCoordinator || r.ExitCode == Interrupted {
		r.RequestID = requestID
	}
	if errors.Is(err, context.Canceled) {
		r.Message = "interrupted"
		return r
	}
	var silent *client.NoAnswerError
	var identity *client.IdentityError
	st, ok := status.FromError(err)
	if !ok || errors.As(err, &silent) || errors.As(err, &identity) {
		return r
	}
	r.Message, r.Reason = st.Message(), reasonOf(st)
	for _, d := range st.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				r.Violations = append(r.Violations, Violation{v.GetField(), v.GetDescription()})
			}
		}
	}
	if r.Reason == "" {
		r.Message = fmt.Sprintf("%s: %s", strings.ToLower(st.Code().String()), r.Message)
	}
	return r
}

// Text writes a report for people; every line is ended.
func (r Report) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "hotspare: %s\n", r.Message)
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "  %s: %s\n", v.Field, v.Message)
	}
	if r.RequestID != "" {
		fmt.Fprintf(&b, "It may have been carried out. To repeat it without doing it twice: --request-id %s\n", r.RequestID)
	}
	return b.String()
}
