package pyexec

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The kinds of [Error], for errors.Is.
var (
	// ErrInvalidRequest is 400, 413, 415, 422: the request is at fault; sending it again will not help.
	ErrInvalidRequest = errors.New("invalid_request")
	// ErrTooLarge is 413: the archive or its contents are over a limit. It is an ErrInvalidRequest too.
	ErrTooLarge = errors.New("too_large")
	// ErrUnauthorized is 401 and 403: the token is missing, wrong, or not enough.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrNotFound is 404: no such execution (never was, or was removed some time after its end).
	ErrNotFound = errors.New("not_found")
	// ErrConflict is 409: the Idempotency-Key was used before with another request.
	ErrConflict = errors.New("conflict")
	// ErrQueueFull is 429: the server has no room now; Error.RetryAfter says when to try again.
	ErrQueueFull = errors.New("queue_full")
	// ErrUnavailable is 502, 503, 504: the server, or something that it needs, is away for now.
	ErrUnavailable = errors.New("unavailable")
	// ErrServer is another 5xx: the server's own fault.
	ErrServer = errors.New("server_error")
	// errOther is any other answer that is none: a redirect, a method that is not allowed.
	errOther = errors.New("error")
)

var kinds = map[int]error{
	400: ErrInvalidRequest, 401: ErrUnauthorized, 403: ErrUnauthorized, 404: ErrNotFound, 409: ErrConflict,
	413: ErrTooLarge, 415: ErrInvalidRequest, 422: ErrInvalidRequest, 429: ErrQueueFull,
	502: ErrUnavailable, 503: ErrUnavailable, 504: ErrUnavailable,
}

// Error is an error that the server answered with.
type Error struct {
	Status     int            // the HTTP status
	Message    string         // the server's sentence for a person
	Code       string         // its snake_case name
	Field      string         // the request's field that is to blame, if any
	Body       []byte         // the answer itself
	RetryAfter *time.Duration // when to try again, where the server says so
}

func (e *Error) Error() string {
	if e.Field != "" && !strings.Contains(e.Message, e.Field) {
		return fmt.Sprintf("%s (%s)", e.Message, e.Field)
	}
	return e.Message
}

// Is tells the kinds apart: errors.Is(err, pyexec.ErrNotFound).
func (e *Error) Is(target error) bool {
	kind := kindOf(e.Status)
	return kind == target || (kind == ErrTooLarge && target == ErrInvalidRequest)
}

// ConnectionError says that the server could not be reached, or that the connection to it broke and could not
// be made again.
type ConnectionError struct {
	URL    string // the server's address
	Reason string // for a person
	Err    error  // what happened below
}

func (e *ConnectionError) Error() string {
	return fmt.Sprintf("cannot reach the server at %s: %s", e.URL, e.Reason)
}

// Unwrap is the cause.
func (e *ConnectionError) Unwrap() error { return e.Err }

// AnswerError says that whatever answered does not speak this API: a wrong address, a proxy, or a server of
// another kind.
type AnswerError struct{ Message string }

func (e *AnswerError) Error() string { return e.Message }

// ArgumentError says that something given to this package makes no sense.
type ArgumentError struct{ Message string }

func (e *ArgumentError) Error() string { return e.Message }

func answerError(format string, values ...any) error {
	return &AnswerError{fmt.Sprintf(format, values...)}
}

func argumentError(format string, values ...any) error {
	return &ArgumentError{fmt.Sprintf(format, values...)}
}

func kindOf(status int) error {
	if kind, known := kinds[status]; known {
		return kind
	}
	if status >= 500 {
		return ErrServer
	}
	return errOther
}

// errorFromAnswer is the error for an HTTP answer that is none of success, whatever its body looks like.
func errorFromAnswer(status int, header http.Header, body []byte) *Error {
	var details map[string]any
	if json.Unmarshal(body, &details) != nil {
		details = nil
	}
	text := func(name, otherwise string) string {
		if value, ok := details[name].(string); ok && value != "" {
			return value
		}
		return otherwise
	}
	return &Error{
		Status:     status,
		Message:    text("error", plainMessage(status, body)),
		Code:       text("code", kindOf(status).Error()),
		Field:      text("field", ""),
		Body:       body,
		RetryAfter: seconds(header.Get("Retry-After")),
	}
}

// plainMessage is for an answer that is not ours (a proxy's page): the status and its first line.
func plainMessage(status int, body []byte) string {
	text := replaceInvalid(string(body[:min(len(body), 2000)]))
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if line == "" {
		return fmt.Sprintf("HTTP %d", status)
	}
	return fmt.Sprintf("HTTP %d: %s", status, shortened(strings.TrimRight(line, "\r"), 200))
}

// seconds reads `Retry-After`; its other form, a date, is not worth comparing two clocks for.
func seconds(value string) *time.Duration {
	number, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
	if err != nil {
		return nil
	}
	pause := time.Duration(number) * time.Second
	return &pause
}

func excerpt(body []byte) string {
	return shortened(replaceInvalid(string(body)), 200)
}

func shortened(text string, most int) string {
	runes := []rune(text)
	return string(runes[:min(len(runes), most)])
}

// replaceInvalid puts a replacement character for each byte that is not UTF-8.
func replaceInvalid(text string) string {
	return string([]rune(text))
}
