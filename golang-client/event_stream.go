package pyexec

import (
	"context"
	"io"
	"iter"
	"net/http"
)

// errNoMoreEvents means that the client has seen the last event of an ended execution.
var errNoMoreEvents = answerError("the server sent no more events, but the execution has not ended")

// streamEvents yields the events that req streams; the last one is Ended.
//
// If the stream breaks after its first event, it reconnects and continues after the last event received. c.resume
// limits the attempts; every event received resets the count. Errors of the first request are yielded unchanged. A
// lost connection is also yielded if the execution ID is still unknown. No event is yielded if lastID is the ID of the
// last event.
func (c *Client) streamEvents(ctx context.Context, req request, executionID, lastID string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		after := lastID
		pauses := Retry{}.pauses() // no retry before the first event
		for {
			done := false
			err := c.readEvents(ctx, req, func(event Event) bool {
				pauses = c.resume.pauses()
				if id := event.EventID(); id != "" {
					lastID = id
				}
				if change, ok := event.(Lifecycle); ok && change.ExecutionID != "" {
					executionID = change.ExecutionID
				}
				_, last := event.(Ended)
				done = !yield(event, nil) || last
				return !done
			})
			if done || (err == errNoMoreEvents && lastID == after) {
				return
			}
			if err == nil {
				err = c.http.connectionError(io.ErrUnexpectedEOF, "the event stream ended before the execution did")
			}
			pause, left := pauses()
			if !left || executionID == "" || !isTransient(err) {
				yield(nil, err)
				return
			}
			if err = sleep(ctx, pause); err == nil {
				req, err = eventsRequest(executionID, lastID, Retry{})
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// readEvents calls handle with each event of one connection, until handle returns false.
func (c *Client) readEvents(ctx context.Context, req request, handle func(Event) bool) error {
	response, err := c.http.open(ctx, req)
	if err != nil {
		return err
	}
	defer response.Close()
	if response.status == http.StatusNoContent && req.header["Last-Event-ID"] != "" {
		return errNoMoreEvents
	}
	if err := response.checkEventStream(); err != nil {
		return err
	}
	var parser sseParser
	buffer := make([]byte, 64<<10)
	for {
		count, readErr := response.Read(buffer)
		for _, message := range parser.feed(buffer[:count]) {
			event, err := eventFromMessage(message)
			if err != nil {
				return err
			}
			if event != nil && !handle(event) {
				return nil
			}
		}
		if readErr == io.EOF {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}
