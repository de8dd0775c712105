package pyexec

import (
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// Status is the status of an execution.
type Status string

// The statuses. Pending and Running are before the end of an execution, the others are final.
const (
	Pending   Status = "pending"
	Running   Status = "running"
	Completed Status = "completed"
	Failed    Status = "failed"
	Killed    Status = "killed"
)

// Statuses contains all statuses, in order.
var Statuses = []Status{Pending, Running, Completed, Failed, Killed}

// Ended reports whether the status is final.
func (s Status) Ended() bool { return s == Completed || s == Failed || s == Killed }

func (s Status) known() bool { return s.Ended() || s == Pending || s == Running }

// Timings contains the milliseconds spent in the queue, in setup, and running.
type Timings struct {
	Queue float64 `json:"queue"`
	Setup float64 `json:"setup"`
	Run   float64 `json:"run"`
}

// Usage is the CPU time and memory that the program used.
type Usage struct {
	CPUSeconds      float64 `json:"cpu_seconds"`
	PeakMemoryBytes int64   `json:"peak_memory_bytes"`
}

// Truncated is true for each text that was cut because it exceeded a limit of the server.
type Truncated struct {
	Stdout bool `json:"stdout"`
	Stderr bool `json:"stderr"`
	Result bool `json:"result,omitempty"` // the value of the last expression (only Eval)

	Displays bool `json:"displays,omitempty"` // a display, or a part of it, was dropped
}

// TracebackFrame is a line of code that an exception passed. The place of a syntax error has no function.
type TracebackFrame struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Function string `json:"function,omitempty"`
	Code     string `json:"code,omitempty"`
}

// TracebackEntry is an exception with its frames, outermost first. Relation says how it came from the entry before: that
// one is its "cause", or it was raised in the "context" of its handling. FramesOmitted counts frames in the middle.
type TracebackEntry struct {
	Type          string           `json:"type"`
	Message       string           `json:"message"`
	Relation      string           `json:"relation,omitempty"`
	Frames        []TracebackFrame `json:"frames"`
	FramesOmitted int              `json:"frames_omitted,omitempty"`
}

// OutputFile is an output file.
type OutputFile struct {
	Path string `json:"path"`
	Size int64  `json:"size"` // bytes
}

// SkippedFile is a file that was not returned, or a pattern of [WithOutputFiles] for which files are missing. Either Path
// or Pattern is empty.
type SkippedFile struct {
	Path    string `json:"path,omitempty"`
	Pattern string `json:"pattern,omitempty"`
	Reason  string `json:"reason"` // no_match, link_outside, too_large, …; newer servers may send other codes
}

// Result is the state of an execution and, once it has ended, its result. Fields that do not apply are nil, zero or
// empty.
type Result struct {
	ExecutionID    string       `json:"execution_id"`
	Status         Status       `json:"status"`
	Tenant         string       `json:"tenant"`     // of the token, if the server requires tokens
	SessionID      string       `json:"session_id"` // the session, if the execution is a cell
	Entrypoint     string       `json:"entrypoint"` // the file that runs
	Stdout         string       `json:"stdout"`     // text, with invalid UTF-8 replaced; empty in the results of List
	Stderr         string       `json:"stderr"`
	ExitCode       *int         `json:"exit_code"`
	Error          string       `json:"error"`      // why it failed
	ErrorType      string       `json:"error_type"` // timeout, out_of_memory, …, or the class of the exception
	ErrorLine      int          `json:"error_line"` // the innermost line in the program's own files
	Value          *string      `json:"result"`     // the repr of the last expression (only Eval)
	CreatedAt      time.Time    `json:"created_at"`
	StartedAt      time.Time    `json:"started_at"`
	FinishedAt     time.Time    `json:"finished_at"`
	DurationMS     *float64     `json:"duration_ms"`
	Timings        *Timings     `json:"timings_ms"`
	Usage          *Usage       `json:"usage"`
	Truncated      Truncated    `json:"truncated"`
	Files          []OutputFile `json:"files"`           // the output files, ready for Client.File and Client.Files
	FilesTruncated bool         `json:"files_truncated"` // output files are missing

	Displays  []Display        `json:"displays"`  // what a notebook would show (Eval, and WithDisplays)
	Traceback []TracebackEntry `json:"traceback"` // the exception, after those that led to it (as for Displays)

	FilesSkipped          []SkippedFile `json:"files_skipped"`           // what was asked for but not returned
	FilesSkippedTruncated bool          `json:"files_skipped_truncated"` // more was skipped than FilesSkipped contains

	InterpreterRestarted bool `json:"interpreter_restarted"` // the session's variables are lost

	// Raw is the JSON object of the response, including fields that only newer servers send. A number that does not fit
	// into its field is only here.
	Raw json.RawMessage `json:"-"`
}

// Ended reports whether the execution has ended. A result that has ended does not change.
func (r *Result) Ended() bool { return r.Status.Ended() }

// OK reports whether the program exited with code 0.
func (r *Result) OK() bool { return r.Status == Completed && r.ExitCode != nil && *r.ExitCode == 0 }

// isOutOfRange reports whether a number does not fit into its field, which is then left out. The other fields have been
// decoded. One such number must not hide a result, or all executions of a list.
func isOutOfRange(err error) bool {
	var mismatch *json.UnmarshalTypeError
	return errors.As(err, &mismatch) && strings.HasPrefix(mismatch.Value, "number ")
}

// parseResult converts the JSON object of a response. It fails with an AnswerError if it is not a result.
func parseResult(body []byte) (*Result, error) {
	result := &Result{Raw: body}
	if err := json.Unmarshal(body, result); err != nil && !isOutOfRange(err) {
		return nil, answerError("invalid response from the server: not a result: %v in %s", err, excerpt(body))
	}
	if result.ExecutionID == "" || !result.Status.known() {
		return nil, answerError("invalid response from the server: not a result: %s", excerpt(body))
	}
	return result, nil
}
