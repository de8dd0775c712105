package pyexec

import (
	"context"
	"errors"
	"io"
	"iter"
)

// follow gives the events that req streams, an Ended last, over as many connections as it takes.
//
// Where a stream that had begun breaks off it goes on from the last event seen, as patiently as c.resume says;
// each event that arrives starts the patience anew. The first request's errors are given as they are, and a
// broken connection where the execution's id is not known yet.
func (c *Client) follow(ctx context.Context, req request, executionID, lastID string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		var patience Retry // none before the first event
		pauses := patience.pauses()
		for {
			over := false
			err := c.read(ctx, req, func(event Event) bool {
				pauses = c.resume.pauses()
				if id := event.EventID(); id != "" {
					lastID = id
				}
				if step, ok := event.(Lifecycle); ok && step.ExecutionID != "" {
					executionID = step.ExecutionID
				}
				_, last := event.(Ended)
				over = !yield(event, nil) || last
				return !over
			})
			if over {
				return
			}
			if err == nil {
				err = c.http.broken(io.ErrUnexpectedEOF, "the event stream ended before the execution did")
			}
			pause, left := pauses()
			if !left || executionID == "" || !goesAway(err) {
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

// read hands on the events of one connection until use says that it is enough.
func (c *Client) read(ctx context.Context, req request, use func(Event) bool) error {
	answer, err := c.http.open(ctx, req)
	if err != nil {
		return err
	}
	defer answer.Close()
	var parser sseParser
	buffer := make([]byte, 64<<10)
	for {
		count, problem := answer.Read(buffer)
		for _, sent := range parser.feed(buffer[:count]) {
			event, err := eventFromMessage(sent)
			if err != nil {
				return err
			}
			if event != nil && !use(event) {
				return nil
			}
		}
		if problem == io.EOF {
			return nil
		}
		if problem != nil {
			return problem
		}
	}
}

// goesAway says whether what is wrong may pass by itself.
func goesAway(err error) bool {
	var lost *ConnectionError
	return errors.As(err, &lost) || errors.Is(err, ErrUnavailable)
}
