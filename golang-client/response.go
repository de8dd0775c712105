package pyexec

import (
	"context"
	"io"
	"mime"
	"net/http"
	"time"
)

// response is a successful response whose body is read as it arrives.
type response struct {
	transport *transport
	ctx       context.Context
	status    int
	header    http.Header
	body      io.ReadCloser
	upload    *uploadBody
	watchdog  *watchdog
}

// Read reads the body as it arrives. It fails with a ConnectionError if the connection is lost.
func (r *response) Read(buffer []byte) (int, error) {
	count, err := r.body.Read(buffer)
	r.watchdog.reset()
	if err != nil && err != io.EOF {
		err = r.transport.errorForCaller(r.ctx, err, r.upload)
	}
	return count, err
}

// Close closes the response. If the body was not read to its end, it closes the connection too.
func (r *response) Close() error {
	r.watchdog.stop()
	return r.body.Close()
}

func (r *response) readAll() ([]byte, error) {
	defer r.Close()
	return io.ReadAll(r)
}

// checkEventStream fails with an AnswerError if the body is not an event stream.
func (r *response) checkEventStream() error {
	kind, _, _ := mime.ParseMediaType(r.header.Get("Content-Type"))
	if kind == "text/event-stream" {
		return nil
	}
	return answerError(
		"%s is not a python-executor server: it sent '%s' instead of an event stream", r.transport.base, kind,
	)
}

// watchdog cancels a request when the server has sent nothing for the idle timeout.
type watchdog struct {
	idleTimeout time.Duration
	cancel      context.CancelCauseFunc
	timer       *time.Timer
}

func newWatchdog(ctx context.Context, idleTimeout time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	dog := &watchdog{idleTimeout: idleTimeout, cancel: cancel}
	dog.timer = time.AfterFunc(time.Hour, func() { cancel(errIdle) })
	dog.timer.Stop()
	return ctx, dog
}

// reset restarts the timer. The timer does not run before the first call, which comes after the request is sent.
func (w *watchdog) reset() {
	if w.idleTimeout > 0 {
		w.timer.Reset(w.idleTimeout)
	}
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}
