package pyexec

import (
	"encoding/json"
	"time"
)

// Status is how far an execution is.
type Status string

// The statuses. The first two are before the end.
const (
	Pending   Status = "pending"
	Running   Status = "running"
	Completed Status = "completed"
	Failed    Status = "failed"
	Killed    Status = "killed"
)

// Statuses are all of them, in order.
var Statuses = []Status{Pending, Running, Completed, Failed, Killed}

// Ended says whether nothing will change any more.
func (s Status) Ended() bool { return s == Completed || s == Failed || s == Killed }

func (s Status) known() bool { return s.Ended() || s == Pending || s == Running }

// Timings are the milliseconds spent waiting for a slot, in setup, and running.
type Timings struct {
	Queue float64 `json:"queue"`
	Setup float64 `json:"setup"`
	Run   float64 `json:"run"`
}

// Usage is what the program used.
type Usage struct {
	CPUSeconds      float64 `json:"cpu_seconds"`
	PeakMemoryBytes int64   `json:"peak_memory_bytes"`
}

// Truncated says whether a stream was cut because it was too long.
type Truncated struct {
	Stdout bool `json:"stdout"`
	Stderr bool `json:"stderr"`
}

// OutputFile is a file that the run brought back.
type OutputFile struct {
	Path string `json:"path"`
	Size int64  `json:"size"` // bytes
}

// Result is an execution's state; after its end, its outcome. What does not apply is nil, zero or empty.
type Result struct {
	ExecutionID    string       `json:"execution_id"`
	Status         Status       `json:"status"`
	Stdout         string       `json:"stdout"` // text, invalid bytes replaced; an entry of a listing has none
	Stderr         string       `json:"stderr"`
	ExitCode       *int         `json:"exit_code"`
	Error          string       `json:"error"`      // why it failed, for a person
	ErrorType      string       `json:"error_type"` // timeout, out_of_memory, …, or the exception's class
	ErrorLine      int          `json:"error_line"` // the innermost line in the user's own files
	Value          *string      `json:"result"`     // the repr of the last expression, of Eval alone
	CreatedAt      time.Time    `json:"created_at"`
	StartedAt      time.Time    `json:"started_at"`
	FinishedAt     time.Time    `json:"finished_at"`
	DurationMS     *float64     `json:"duration_ms"`
	Timings        *Timings     `json:"timings_ms"`
	Usage          *Usage       `json:"usage"`
	Truncated      Truncated    `json:"truncated"`
	Files          []OutputFile `json:"files"` // what WithOutputFiles brought back
	FilesTruncated bool         `json:"files_truncated"`

	// Raw is the answer itself, with fields of newer servers.
	Raw json.RawMessage `json:"-"`
}

// Ended says whether it is over: nothing of it will change any more.
func (r *Result) Ended() bool { return r.Status.Ended() }

// OK says whether the program ran to its end and exited with 0.
func (r *Result) OK() bool { return r.Status == Completed && r.ExitCode != nil && *r.ExitCode == 0 }

// parseResult reads the Result object of an answer; AnswerError if it is not one.
func parseResult(body []byte) (*Result, error) {
	result := &Result{Raw: body}
	if err := json.Unmarshal(body, result); err != nil {
		return nil, answerError("the server's answer is not a result: %v in %s", err, excerpt(body))
	}
	if result.ExecutionID == "" || !result.Status.known() {
		return nil, answerError("the server's answer is not a result but %s", excerpt(body))
	}
	return result, nil
}
