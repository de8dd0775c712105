package pyexec

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// errIdle is the cause of a request that the watchdog cancelled.
var errIdle = errors.New("the server stopped responding")

// transport sends requests to one server, and retries them where it is safe.
type transport struct {
	base   string
	token  string
	client *http.Client
}

// The body of an error response is read up to these bounds: its status is enough.
const (
	errorBytesMax = 1 << 20
	errorTimeout  = 10 * time.Second
)

// json sends req and unmarshals the response into target. It returns the body too.
func (t *transport) json(ctx context.Context, req request, target any) ([]byte, error) {
	body, err := t.readAll(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, target); err != nil {
		return nil, answerError("%s is not a python-executor server: it sent %s", t.base, excerpt(body))
	}
	return body, nil
}

// readAll sends req and returns the whole body of the response. It fails as open does.
func (t *transport) readAll(ctx context.Context, req request) ([]byte, error) {
	return retrying(ctx, req, func() ([]byte, error) {
		response, err := t.attempt(ctx, req)
		if err != nil {
			return nil, err
		}
		return response.readAll()
	})
}

// open sends req and returns a successful response whose body has not been read yet. It fails with an Error from
// the server, a ConnectionError, the context's error, or the error of a source that could not be read.
func (t *transport) open(ctx context.Context, req request) (*response, error) {
	return retrying(ctx, req, func() (*response, error) { return t.attempt(ctx, req) })
}

// retrying calls attempt until it succeeds, or until req may not be sent again.
func retrying[T any](ctx context.Context, req request, attempt func() (T, error)) (T, error) {
	pauses := req.retry.pauses()
	for {
		result, err := attempt()
		if err == nil {
			return result, nil
		}
		retryAfter, retry := retryable(err)
		pause, left := pauses()
		if !retry || !left || retryAfter > req.retry.Longest {
			return result, err
		}
		if err := sleep(ctx, max(pause, retryAfter)); err != nil {
			return result, err
		}
	}
}

// retryable reports whether a retry may succeed, and how long the server asks to wait before it.
func retryable(err error) (time.Duration, bool) {
	retry := isTransient(err) || errors.Is(err, ErrQueueFull)
	var rejected *Error
	if errors.As(err, &rejected) && rejected.RetryAfter != nil {
		return *rejected.RetryAfter, retry
	}
	return 0, retry
}

// isTransient reports whether err is a lost connection or an unavailable server.
func isTransient(err error) bool {
	var lost *ConnectionError
	return errors.As(err, &lost) || errors.Is(err, ErrUnavailable)
}

func (t *transport) attempt(ctx context.Context, req request) (*response, error) {
	ctx, dog := newWatchdog(ctx, req.idleTimeout)
	sent, upload, err := t.build(ctx, req, dog)
	if err != nil {
		dog.stop()
		return nil, err
	}
	if upload == nil {
		dog.reset()
	}
	received, err := t.client.Do(sent)
	if err != nil {
		defer dog.stop()
		return nil, t.errorForCaller(ctx, err, upload)
	}
	got := &response{
		transport: t, ctx: ctx, status: received.StatusCode, header: received.Header, body: received.Body,
		upload: upload, watchdog: dog,
	}
	dog.reset()
	if received.StatusCode >= 200 && received.StatusCode < 300 {
		return got, nil
	}
	defer got.Close()
	var body []byte
	if received.StatusCode >= 300 { // the body of a 101 is the connection, which the context does not end
		defer time.AfterFunc(errorTimeout, func() { dog.cancel(errIdle) }).Stop()
		body, _ = io.ReadAll(io.LimitReader(got, errorBytesMax)) // without a body, the status is enough
	}
	return nil, errorFromResponse(received.StatusCode, received.Header, body)
}

func (t *transport) build(ctx context.Context, req request, dog *watchdog) (*http.Request, *uploadBody, error) {
	query := url.Values{}
	for name, value := range req.query {
		query.Set(name, value)
	}
	address := t.base + req.path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	var body io.Reader
	var upload *uploadBody
	header := http.Header{}
	if req.upload != nil {
		var err error
		if upload, err = newUploadBody(req.upload, dog.reset); err != nil {
			return nil, nil, err
		}
		body = upload
		header.Set("Content-Type", upload.contentType)
	} else if req.content != nil {
		upload = newContentBody(req.content, dog.reset)
		body = upload
		header.Set("Content-Type", upload.contentType)
	} else if req.body != nil {
		body = bytes.NewReader(req.body)
	}
	built, err := http.NewRequestWithContext(ctx, req.method, address, body)
	if err != nil {
		return nil, nil, err
	}
	for name, value := range req.header {
		header.Set(name, value)
	}
	if t.token != "" {
		header.Set("Authorization", "Bearer "+t.token)
	}
	built.Header = header
	return built, upload, nil
}

// errorForCaller returns the context's error if the context ended, else the error that made reading the source
// fail, else a ConnectionError.
func (t *transport) errorForCaller(ctx context.Context, err error, upload *uploadBody) error {
	cause := context.Cause(ctx)
	if cause != nil && cause != errIdle {
		return cause
	}
	if upload != nil {
		if sourceErr := upload.sourceError(); sourceErr != nil {
			return sourceErr
		}
	}
	if cause != nil {
		err = cause
	}
	return t.connectionError(err, reason(err))
}

func (t *transport) connectionError(err error, reason string) error {
	return &ConnectionError{URL: t.base, Reason: reason, Err: err}
}

func reason(err error) string {
	var wrapper *url.Error
	if errors.As(err, &wrapper) {
		err = wrapper.Err
	}
	var dns *net.DNSError
	var dial *net.OpError
	var number syscall.Errno
	switch {
	case errors.Is(err, errIdle):
		return errIdle.Error()
	case errors.As(err, &dns):
		return "the host name cannot be resolved"
	case errors.As(err, &dial) && dial.Op == "dial" && dial.Timeout():
		return fmt.Sprintf("connecting timed out after %g s", connectTimeout.Seconds())
	case errors.As(err, &dial) && dial.Op == "dial" && errors.As(err, &number):
		return number.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection was lost"
	}
	return err.Error()
}
