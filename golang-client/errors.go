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

// The kinds of [Error]. Use them with errors.Is.
var (
	// ErrInvalidRequest is 400, 413, 415, 422: the request is invalid; a retry cannot succeed.
	ErrInvalidRequest = errors.New("invalid_request")
	// ErrTooLarge is 413: the archive or its contents exceed a limit. It is an ErrInvalidRequest too.
	ErrTooLarge = errors.New("too_large")
	// ErrUnauthorized is 401 and 403: the token is missing, invalid, or lacks permission.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrNotFound is 404: no such execution, session or file. Ended executions are deleted after the retention
	// period.
	ErrNotFound = errors.New("not_found")
	// ErrConflict is 409: the Idempotency-Key was used with another request, or files were requested before the
	// end.
	ErrConflict = errors.New("conflict")
	// ErrSessionClosed is 410: the session is closed; the message says why.
	ErrSessionClosed = errors.New("session_closed")
	// ErrQueueFull is 429: the server has no capacity now; Error.RetryAfter is the time to wait.
	ErrQueueFull = errors.New("queue_full")
	// ErrUnavailable is 502, 503, 504: the server, or a service that it needs, is temporarily unavailable.
	ErrUnavailable = errors.New("unavailable")
	// ErrServer is any other 5xx: an internal error of the server.
	ErrServer = errors.New("server_error")
	// errOther is any other unsuccessful status, such as a redirect or 405.
	errOther = errors.New("error")
)

var kinds = map[int]error{
	400: ErrInvalidRequest, 401: ErrUnauthorized, 403: ErrUnauthorized, 404: ErrNotFound, 409: ErrConflict,
	410: ErrSessionClosed,
	413: ErrTooLarge, 415: ErrInvalidRequest, 422: ErrInvalidRequest, 429: ErrQueueFull,
	502: ErrUnavailable, 503: ErrUnavailable, 504: ErrUnavailable,
}

// Error is an error response of the server.
type Error struct {
	Status     int            // the HTTP status
	Message    string         // the server's error message
	Code       string         // the snake_case error code
	Field      string         // the request field that is wrong, if any
	Body       []byte         // the raw response body
	RetryAfter *time.Duration // time to wait before a retry, if the server says so
}

func (e *Error) Error() string {
	if e.Field != "" && !strings.Contains(e.Message, e.Field) {
		return fmt.Sprintf("%s (%s)", e.Message, e.Field)
	}
	return e.Message
}

// Is reports whether the error is of this kind, for errors.Is(err, pyexec.ErrNotFound).
func (e *Error) Is(target error) bool {
	kind := kindOf(e.Status)
	return kind == target || (kind == ErrTooLarge && target == ErrInvalidRequest)
}

// ConnectionError means that the server cannot be reached, or that the connection was lost and reconnecting failed.
type ConnectionError struct {
	URL    string // the server URL
	Reason string // a short description of the cause
	Err    error  // the cause
}

func (e *ConnectionError) Error() string {
	return fmt.Sprintf("cannot reach the server at %s: %s", e.URL, e.Reason)
}

// Unwrap returns the cause.
func (e *ConnectionError) Unwrap() error { return e.Err }

// AnswerError means that the response does not follow this API. The URL may be wrong, or a proxy may have answered.
type AnswerError struct{ Message string }

func (e *AnswerError) Error() string { return e.Message }

// ArgumentError means that an argument is invalid.
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

// errorFromResponse returns the error for an unsuccessful HTTP response; the body may have any form.
func errorFromResponse(status int, header http.Header, body []byte) *Error {
	var details map[string]any
	if json.Unmarshal(body, &details) != nil {
		details = nil
	}
	text := func(name, fallback string) string {
		if value, ok := details[name].(string); ok && value != "" {
			return value
		}
		return fallback
	}
	return &Error{
		Status:     status,
		Message:    text("error", fallbackMessage(status, header, body)),
		Code:       text("code", kindOf(status).Error()),
		Field:      text("field", ""),
		Body:       body,
		RetryAfter: parseRetryAfter(header.Get("Retry-After")),
	}
}

// fallbackMessage returns the HTTP status, and the target of a redirect or the first line of a body that is not JSON.
func fallbackMessage(status int, header http.Header, body []byte) string {
	if target := header.Get("Location"); status >= 300 && status < 400 && target != "" {
		return fmt.Sprintf("HTTP %d: redirect to %s; the client does not follow redirects", status, truncate(target, 200))
	}
	text := replaceInvalid(string(body[:min(len(body), 2000)]))
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if line == "" {
		return fmt.Sprintf("HTTP %d", status)
	}
	return fmt.Sprintf("HTTP %d: %s", status, truncate(strings.TrimRight(line, "\r"), 200))
}

// parseRetryAfter parses `Retry-After` in seconds. It ignores the date form, which depends on the server's clock.
func parseRetryAfter(value string) *time.Duration {
	number, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
	if err != nil {
		return nil
	}
	pause := time.Duration(number) * time.Second
	return &pause
}

func excerpt(body []byte) string {
	return truncate(replaceInvalid(string(body)), 200)
}

func truncate(text string, length int) string {
	runes := []rune(text)
	return string(runes[:min(len(runes), length)])
}

// replaceInvalid replaces each invalid UTF-8 byte with U+FFFD.
func replaceInvalid(text string) string {
	return string([]rune(text))
}
