package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
	// ExitOK: done; also a repeat of the same request.
	ExitOK = 0
	// ExitFailed: failed; also a watch that ends incomplete.
	ExitFailed = 1
	// ExitUsage: the command line or a manifest is wrong.
	ExitUsage = 2
	// ExitNoCoordinator: no coordinator reachable, or no leader.
	ExitNoCoordinator = 3
	// ExitDenied: not authenticated or not allowed.
	ExitDenied = 4
	// ExitGoesOn: timed out while the operation goes on.
	ExitGoesOn = 5
	// ExitConflict: a conflict or a precondition.
	ExitConflict = 6
	// ExitNoFit: it does not fit, is not proven, or exceeds a quota.
	ExitNoFit = 7
	// ExitInterrupted: by SIGINT.
	ExitInterrupted = 130
)

// faultExits is the table from what the coordinator answers to the exit code.
var faultExits = map[model.Fault]int{
	model.FaultInvalid:         ExitUsage,
	model.FaultNotFound:        ExitFailed,
	model.FaultExists:          ExitConflict,
	model.FaultStale:           ExitConflict,
	model.FaultPrecondition:    ExitConflict,
	model.FaultNoFit:           ExitNoFit,
	model.FaultQuota:           ExitNoFit,
	model.FaultUnauthenticated: ExitDenied,
	model.FaultDenied:          ExitDenied,
	model.FaultUnavailable:     ExitNoCoordinator,
	model.FaultUnsupported:     ExitFailed,
	model.FaultTooMany:         ExitFailed,
}

// codeExits serves answers without our ErrorInfo: from gRPC itself, or from something in between.
var codeExits = map[codes.Code]int{
	codes.Canceled:           ExitInterrupted,
	codes.InvalidArgument:    ExitUsage,
	codes.OutOfRange:         ExitUsage,
	codes.AlreadyExists:      ExitConflict,
	codes.Aborted:            ExitConflict,
	codes.FailedPrecondition: ExitConflict,
	codes.PermissionDenied:   ExitDenied,
	codes.Unauthenticated:    ExitDenied,
	codes.Unavailable:        ExitNoCoordinator,
	codes.DeadlineExceeded:   ExitNoCoordinator,
}

// exitError carries its own exit code.
type exitError struct {
	code int
	err  error
	// quiet: everything was said already.
	quiet bool
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// ExitCode returns the exit code for an error.
func ExitCode(err error) int {
	var coded *exitError
	var usage usageError
	var manifest *strictyaml.Error
	var silent *client.NoAnswerError
	var identity *client.IdentityError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &usage), errors.As(err, &manifest):
		return ExitUsage
	case errors.As(err, &identity):
		return ExitDenied
	case errors.As(err, &silent):
		return ExitNoCoordinator
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	}
	st, ok := status.FromError(err)
	if !ok {
		return ExitFailed
	}
	if code, ok := faultExits[model.FaultOfReason(reasonOf(st))]; ok {
		return code
	}
	if code, ok := codeExits[st.Code()]; ok {
		return code
	}
	return ExitFailed
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

// violation is one wrong field of a request.
type violation struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// report is an error as -o json shows it; its keys are API.
type report struct {
	ExitCode   int         `json:"exitCode"`
	Reason     string      `json:"reason,omitempty"`
	Message    string      `json:"message"`
	Violations []violation `json:"violations,omitempty"`
	// RequestID repeats the request safely when its outcome is unknown.
	RequestID string `json:"requestId,omitempty"`
}

func newReport(err error, code int) report {
	r := report{ExitCode: code, Message: err.Error()}
	if errors.Is(err, context.Canceled) {
		r.Message = "interrupted"
		return r
	}
	var silent *client.NoAnswerError
	if st, ok := status.FromError(err); ok && !errors.As(err, &silent) {
		r.Message, r.Reason = st.Message(), reasonOf(st)
		for _, d := range st.Details() {
			if bad, ok := d.(*errdetails.BadRequest); ok {
				for _, v := range bad.GetFieldViolations() {
					r.Violations = append(r.Violations, violation{v.GetField(), v.GetDescription()})
				}
			}
		}
		if r.Reason == "" && !slices.Contains([]codes.Code{codes.Unknown, codes.Canceled}, st.Code()) {
			r.Message = fmt.Sprintf("%s: %s", strings.ToLower(st.Code().String()), r.Message)
		}
	}
	return r
}

// printError writes the error for a person, or as JSON.
func (a *app) printError(err error, code int) {
	var coded *exitError
	if errors.As(err, &coded) && coded.quiet {
		return
	}
	r := newReport(err, code)
	if code == ExitNoCoordinator || code == ExitInterrupted {
		r.RequestID = a.requestID
	}
	if a.output == "json" {
		out, jerr := json.MarshalIndent(map[string]report{"error": r}, "", "  ")
		if jerr == nil {
			fmt.Fprintf(a.Err, "%s\n", out)
			return
		}
	}
	fmt.Fprintf(a.Err, "hotspare: %s\n", r.Message)
	for _, v := range r.Violations {
		fmt.Fprintf(a.Err, "  %s: %s\n", v.Field, v.Message)
	}
	if r.RequestID != "" {
		fmt.Fprintf(a.Err, "It may have been carried out. To repeat it without doing it twice: --request-id %s\n", r.RequestID)
	}
}
