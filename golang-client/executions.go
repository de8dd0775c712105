package pyexec

import (
	"context"
	"encoding/json"
	"io"
	"iter"
)

// Get is the execution's state now.
func (c *Client) Get(ctx context.Context, executionID string) (*Result, error) {
	req, err := executionRequest("GET", executionID, "", c.retry)
	if err != nil {
		return nil, err
	}
	return c.result(ctx, req)
}

// Wait returns once the execution has ended, or when ctx ends. It asks the server to hold the answer; it does
// not ask again and again.
func (c *Client) Wait(ctx context.Context, executionID string) (*Result, error) {
	req, err := waitRequest(executionID, c.retry)
	for err == nil {
		var result *Result
		if result, err = c.result(ctx, req); err == nil && result.Ended() {
			return result, nil
		}
		req.retry = c.resume
	}
	return nil, err
}

// Kill ends the execution. The status is [Killed], or what it had become by itself, or, where its end is still
// on the way after 10 seconds, the present one.
func (c *Client) Kill(ctx context.Context, executionID string) (Status, error) {
	req, err := executionRequest("DELETE", executionID, "", c.retry)
	if err != nil {
		return "", err
	}
	var answer struct {
		Status Status `json:"status"`
	}
	body, err := c.http.json(ctx, req, &answer)
	if err == nil && !answer.Status.known() {
		err = answerError("the server's answer has no status: %s", excerpt(body))
	}
	return answer.Status, err
}

// Listing says which executions [Client.List] gives.
type Listing struct {
	Status Status // only these; empty: all
	Limit  int    // at most so many; 0: all
}

// List gives executions, newest first, without their outputs. An error is the last thing it gives.
func (c *Client) List(ctx context.Context, listing Listing) iter.Seq2[*Result, error] {
	return func(yield func(*Result, error) bool) {
		left, cursor := listing.Limit, ""
		for {
			page, err := c.page(ctx, listing.Status, left, cursor)
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
			if cursor = page.NextCursor; cursor == "" {
				return
			}
		}
	}
}

type page struct {
	Executions []json.RawMessage `json:"executions"`
	NextCursor string            `json:"next_cursor"`
}

func (c *Client) page(ctx context.Context, status Status, left int, cursor string) (*page, error) {
	var got page
	body, err := c.http.json(ctx, pageRequest(status, left, cursor, c.retry), &got)
	if err == nil && got.Executions == nil {
		err = answerError("the server's answer has no executions: %s", excerpt(body))
	}
	return &got, err
}

// LogsOption says which output [Client.Logs] gives.
type LogsOption func(query map[string]string)

// OnlyStream gives one of the two streams, "stdout" or "stderr".
func OnlyStream(stream string) LogsOption {
	return func(query map[string]string) { query["stream"] = stream }
}

// FollowLogs goes on until the execution ends.
func FollowLogs() LogsOption {
	return func(query map[string]string) { query["follow"] = "1" }
}

// Logs is the execution's output, byte for byte, both streams in the order they came. The caller closes it.
func (c *Client) Logs(ctx context.Context, executionID string, options ...LogsOption) (io.ReadCloser, error) {
	req, err := executionRequest("GET", executionID, "/logs", c.retry)
	if err != nil {
		return nil, err
	}
	for _, option := range options {
		option(req.query)
	}
	if req.query["follow"] != "" {
		req.silence = 0 // a program may be silent for as long as it likes
	}
	return c.body(ctx, req)
}

// Files is what [WithOutputFiles] brought back, as an uncompressed tar. The caller closes it.
func (c *Client) Files(ctx context.Context, executionID string) (io.ReadCloser, error) {
	req, err := executionRequest("GET", executionID, "/files", c.retry)
	if err != nil {
		return nil, err
	}
	return c.body(ctx, req)
}

// File is one of the files that [WithOutputFiles] brought back. The caller closes it.
func (c *Client) File(ctx context.Context, executionID, path string) (io.ReadCloser, error) {
	req, err := executionRequest("GET", executionID, "/files/"+escapePath(path), c.retry)
	if err != nil {
		return nil, err
	}
	return c.body(ctx, req)
}

func (c *Client) body(ctx context.Context, req request) (io.ReadCloser, error) {
	answer, err := c.http.open(ctx, req)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// Events gives what happened and happens to the execution, an [Ended] last. after is the id of the last event
// already known, or empty. A connection that breaks is made again, where it broke off. An error is the last
// thing it gives.
func (c *Client) Events(ctx context.Context, executionID, after string) iter.Seq2[Event, error] {
	req, err := eventsRequest(executionID, after, c.retry)
	if err != nil {
		return func(yield func(Event, error) bool) { yield(nil, err) }
	}
	return c.follow(ctx, req, executionID, after)
}
