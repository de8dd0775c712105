package pyexec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// Get returns the current state of an execution.
func (c *Client) Get(ctx context.Context, executionID string) (*Result, error) {
	req, err := executionRequest("GET", executionID, "", c.retry)
	if err != nil {
		return nil, err
	}
	return c.result(ctx, req)
}

// pollPause is the shortest time between two requests of Wait.
const pollPause = 500 * time.Millisecond

// Wait waits until an execution has ended. It uses long polling: the server holds the request until then.
//
// If ctx ends first, the error wraps ctx's error and names the execution, which continues.
func (c *Client) Wait(ctx context.Context, executionID string) (*Result, error) {
	req, err := waitRequest(executionID, c.retry)
	started := time.Now()
	for err == nil {
		var result *Result
		earliest := time.Now().Add(pollPause)
		if result, err = c.result(ctx, req); err == nil && result.Ended() {
			return result, nil
		}
		req.retry = c.resume
		if err == nil { // a proxy or a server that shuts down may answer at once
			err = sleep(ctx, time.Until(earliest))
		}
	}
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("execution %s has not ended after %.3g s; it continues: call Wait again, or Kill: %w",
			executionID, time.Since(started).Seconds(), err)
	}
	return nil, err
}

// Kill kills an execution and returns its status: [Killed], or the final status of an execution that had already
// ended. If the execution has not ended after 10 seconds, it is the current status.
func (c *Client) Kill(ctx context.Context, executionID string) (Status, error) {
	req, err := executionRequest("DELETE", executionID, "", c.retry)
	if err != nil {
		return "", err
	}
	var killed struct {
		Status Status `json:"status"`
	}
	body, err := c.http.json(ctx, req, &killed)
	if err == nil && !killed.Status.known() {
		err = answerError("invalid response from the server: status is missing: %s", excerpt(body))
	}
	return killed.Status, err
}

// Listing selects the executions of [Client.List].
type Listing struct {
	Status    Status // only executions with this status; empty means all
	Limit     int    // at most this many executions; 0 means all
	SessionID string // only the cells of this interpreter session; empty means all executions
}

// List yields executions, newest first, without their output. The server cuts the entrypoint, the error and the value;
// [Client.Get] returns them whole. List stops after the first error.
func (c *Client) List(ctx context.Context, listing Listing) iter.Seq2[*Result, error] {
	return func(yield func(*Result, error) bool) {
		if listing.Limit < 0 {
			yield(nil, argumentError("the limit must be at least 1, not %d; 0 means all", listing.Limit))
			return
		}
		left, cursor := listing.Limit, ""
		for {
			page, err := c.page(ctx, listing, left, cursor)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, entry := range page.Executions {
				result, err := parseResult(entry)
				if !yield(result, err) || err != nil {
					return
				}
				if left--; left == 0 {
					return
				}
			}
			if page.NextCursor == "" {
				return
			}
			if page.NextCursor == cursor {
				yield(nil, answerError("invalid response from the server: next_cursor repeats: %s", excerpt([]byte(cursor))))
				return
			}
			cursor = page.NextCursor
		}
	}
}

type page struct {
	Executions []json.RawMessage `json:"executions"`
	NextCursor string            `json:"next_cursor"`
}

func (c *Client) page(ctx context.Context, listing Listing, left int, cursor string) (*page, error) {
	var received page
	body, err := c.http.json(ctx, pageRequest(listing, left, cursor, c.retry), &received)
	if err == nil && received.Executions == nil {
		err = answerError("invalid response from the server: executions is missing: %s", excerpt(body))
	}
	return &received, err
}

// LogsOption selects the output of [Client.Logs].
type LogsOption func(query map[string]string)

// OnlyStream selects one stream, "stdout" or "stderr".
func OnlyStream(stream string) LogsOption {
	return func(query map[string]string) { query["stream"] = stream }
}

// FollowLogs keeps the log open until the execution ends.
func FollowLogs() LogsOption {
	return func(query map[string]string) { query["follow"] = "1" }
}

// Logs returns the output of an execution as raw bytes, both streams in the order in which they were written. The
// caller must close it.
func (c *Client) Logs(ctx context.Context, executionID string, options ...LogsOption) (io.ReadCloser, error) {
	req, err := executionRequest("GET", executionID, "/logs", c.retry)
	if err != nil {
		return nil, err
	}
	for _, option := range options {
		option(req.query)
	}
	if req.query["follow"] != "" {
		req.idleTimeout = 0 // a program may print nothing for any length of time
	}
	return c.body(ctx, req)
}

// Files returns the output files ([WithOutputFiles]) as an uncompressed tar. The caller must close it.
func (c *Client) Files(ctx context.Context, executionID string) (io.ReadCloser, error) {
	req, err := executionRequest("GET", executionID, "/files", c.retry)
	if err != nil {
		return nil, err
	}
	return c.body(ctx, req)
}

// File returns the contents of one output file. The caller must close it.
func (c *Client) File(ctx context.Context, executionID, path string) (io.ReadCloser, error) {
	escaped, err := filePath(path)
	if err != nil {
		return nil, err
	}
	req, err := executionRequest("GET", executionID, "/files/"+escaped, c.retry)
	if err != nil {
		return nil, err
	}
	return c.body(ctx, req)
}

func (c *Client) body(ctx context.Context, req request) (io.ReadCloser, error) {
	response, err := c.http.open(ctx, req)
	if err != nil {
		return nil, err
	}
	return response, nil
}

// Events yields past and future events of an execution; the last one is [Ended]. after is the ID of the last
// event already seen, or empty. If that was Ended, there are no events. If the connection breaks, the client
// reconnects and continues after the last event. Events stops after the first error.
func (c *Client) Events(ctx context.Context, executionID, after string) iter.Seq2[Event, error] {
	req, err := eventsRequest(executionID, after, c.retry)
	if err != nil {
		return func(yield func(Event, error) bool) { yield(nil, err) }
	}
	return c.streamEvents(ctx, req, executionID, after)
}
