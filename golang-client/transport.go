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

var errSilent = errors.New("it stopped answering")

// transport sends requests to one server, and again where that is safe.
type transport struct {
	base   string
	token  string
	client *http.Client
}

// json sends req and reads the whole answer as JSON into target; it gives the answer's text too.
func (t *transport) json(ctx context.Context, req request, target any) ([]byte, error) {
	answer, err := t.open(ctx, req)
	if err != nil {
		return nil, err
	}
	body, err := answer.all()
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, target); err != nil {
		return nil, answerError("%s does not answer as python-executor does: %s", t.base, excerpt(body))
	}
	return body, nil
}

// open sends req and gives a good answer, whose body has not been read yet. It fails with an Error that the
// server answered, a ConnectionError, ctx's error, or that of the source that could not be read.
func (t *transport) open(ctx context.Context, req request) (*answer, error) {
	pauses := req.retry.pauses()
	for {
		answer, err := t.attempt(ctx, req)
		if err == nil {
			return answer, nil
		}
		asked, again := retryable(err)
		pause, left := pauses()
		if !again || !left || asked > req.retry.Longest {
			return nil, err
		}
		if err := sleep(ctx, max(pause, asked)); err != nil {
			return nil, err
		}
	}
}

// retryable says whether trying again may help, and how long the server asks to wait first.
func retryable(err error) (time.Duration, bool) {
	var refused *Error
	if errors.As(err, &refused) && refused.RetryAfter != nil {
		return *refused.RetryAfter, goesAway(err) || errors.Is(err, ErrQueueFull)
	}
	return 0, goesAway(err) || errors.Is(err, ErrQueueFull)
}

func (t *transport) attempt(ctx context.Context, req request) (*answer, error) {
	ctx, watch := newWatchdog(ctx, req.silence)
	sent, body, err := t.build(ctx, req, watch)
	if err != nil {
		watch.stop()
		return nil, err
	}
	if body == nil {
		watch.touch()
	}
	response, err := t.client.Do(sent)
	if err != nil {
		defer watch.stop()
		return nil, t.failure(ctx, err, body)
	}
	got := &answer{transport: t, ctx: ctx, body: response.Body, sent: body, watch: watch}
	watch.touch()
	if response.StatusCode < 300 {
		return got, nil
	}
	defer got.Close()
	text, _ := io.ReadAll(io.LimitReader(got, 1<<20)) // if it breaks off, the status alone says enough
	return nil, errorFromAnswer(response.StatusCode, response.Header, text)
}

func (t *transport) build(ctx context.Context, req request, watch *watchdog) (*http.Request, *uploadBody, error) {
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
		if upload, err = newUploadBody(req.upload, watch.touch); err != nil {
			return nil, nil, err
		}
		body = upload
		header.Set("Content-Type", upload.contentType)
	} else if req.body != nil {
		body = bytes.NewReader(req.body)
	}
	sent, err := http.NewRequestWithContext(ctx, req.method, address, body)
	if err != nil {
		return nil, nil, err
	}
	for name, value := range req.header {
		header.Set(name, value)
	}
	if t.token != "" {
		header.Set("Authorization", "Bearer "+t.token)
	}
	sent.Header = header
	return sent, upload, nil
}

// failure is what to tell the caller: that the context ended, our own failure to read what is to be sent, and
// only then the network's.
func (t *transport) failure(ctx context.Context, problem error, body *uploadBody) error {
	cause := context.Cause(ctx)
	if cause != nil && cause != errSilent {
		return cause
	}
	if body != nil {
		if own := body.failed(); own != nil {
			return own
		}
	}
	if cause != nil {
		problem = cause
	}
	return t.broken(problem, reason(problem))
}

func (t *transport) broken(problem error, reason string) error {
	return &ConnectionError{URL: t.base, Reason: reason, Err: problem}
}

func reason(problem error) string {
	var wrapper *url.Error
	if errors.As(problem, &wrapper) {
		problem = wrapper.Err
	}
	var dns *net.DNSError
	var dial *net.OpError
	var number syscall.Errno
	switch {
	case errors.Is(problem, errSilent):
		return errSilent.Error()
	case errors.As(problem, &dns):
		return "its name cannot be resolved"
	case errors.As(problem, &dial) && dial.Op == "dial" && dial.Timeout():
		return fmt.Sprintf("no connection within %g s", connectTimeout.Seconds())
	case errors.As(problem, &dial) && dial.Op == "dial" && errors.As(problem, &number):
		return number.Error()
	case errors.Is(problem, io.EOF), errors.Is(problem, io.ErrUnexpectedEOF),
		errors.Is(problem, syscall.ECONNRESET), errors.Is(problem, syscall.EPIPE):
		return "the connection broke"
	}
	return problem.Error()
}
