package pyexec

import (
	"context"
	"io"
	"time"
)

// answer is a good answer whose body is read as it arrives.
type answer struct {
	transport *transport
	ctx       context.Context
	body      io.ReadCloser
	sent      *uploadBody
	watch     *watchdog
}

// Read gives the body as it arrives; a ConnectionError if it stops in the middle.
func (a *answer) Read(buffer []byte) (int, error) {
	count, err := a.body.Read(buffer)
	a.watch.touch()
	if err != nil && err != io.EOF {
		err = a.transport.failure(a.ctx, err, a.sent)
	}
	return count, err
}

// Close ends the answer; if it was not read to its end, that hangs up.
func (a *answer) Close() error {
	a.watch.stop()
	return a.body.Close()
}

func (a *answer) all() ([]byte, error) {
	defer a.Close()
	return io.ReadAll(a)
}

// watchdog ends a request whose server has been silent for too long.
type watchdog struct {
	silence time.Duration
	cancel  context.CancelCauseFunc
	timer   *time.Timer
}

func newWatchdog(ctx context.Context, silence time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	watch := &watchdog{silence: silence, cancel: cancel}
	watch.timer = time.AfterFunc(time.Hour, func() { cancel(errSilent) })
	watch.timer.Stop()
	return ctx, watch
}

// touch starts the time anew; the first call, once all is sent that there is to send, starts it at all.
func (w *watchdog) touch() {
	if w.silence > 0 {
		w.timer.Reset(w.silence)
	}
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}
