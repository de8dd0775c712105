package pyexec

import (
	"context"
	"encoding/json"
	"iter"
)

// Run runs the source and waits until it ends. [OnEvent] receives each event as it arrives.
//
// Cancelling ctx closes the connection, and the server kills the execution. With [WithIdempotencyKey] the execution
// continues instead, and the same call with the same key attaches to it.
func (c *Client) Run(ctx context.Context, source Source, options ...Option) (*Result, error) {
	settings := newSettings(options)
	for event, err := range c.stream(ctx, source, settings, "Run") {
		if err != nil {
			return nil, err
		}
		if settings.onEvent != nil {
			settings.onEvent(event)
		}
		if ended, ok := event.(Ended); ok {
			return ended.Result, nil
		}
	}
	panic("pyexec: an event stream ends with Ended or an error")
}

// Stream runs the source and yields its events as they arrive; the last one is [Ended]. It stops after the first
// error. Leaving the loop early closes the connection, as cancelling [Client.Run] does.
func (c *Client) Stream(ctx context.Context, source Source, options ...Option) iter.Seq2[Event, error] {
	return c.stream(ctx, source, newSettings(options), "Stream")
}

func (c *Client) stream(ctx context.Context, source Source, settings *settings, call string) iter.Seq2[Event, error] {
	req, err := uploadRequest("exec/sync", source, settings, settings.key, c.retry)
	if err == nil {
		err = settings.checkFor(call)
	}
	if err != nil {
		return func(yield func(Event, error) bool) { yield(nil, err) }
	}
	req.header["Accept"] = "text/event-stream"
	return c.streamEvents(ctx, req, "", "")
}

// Submit submits the source and returns the execution ID at once, without waiting for the run.
func (c *Client) Submit(ctx context.Context, source Source, options ...Option) (string, error) {
	settings := newSettings(options)
	if err := settings.checkFor("Submit"); err != nil {
		return "", err
	}
	key := settings.key
	if key == "" {
		key = newKey()
	}
	req, err := uploadRequest("exec/async", source, settings, key, c.retry)
	if err != nil {
		return "", err
	}
	return c.accepted(ctx, req)
}

// accepted sends a request that is answered with an execution ID, and returns that.
func (c *Client) accepted(ctx context.Context, req request) (string, error) {
	var accepted struct {
		ExecutionID string `json:"execution_id"`
	}
	body, err := c.http.json(ctx, req, &accepted)
	if err == nil && accepted.ExecutionID == "" {
		err = answerError("invalid response from the server: execution_id is missing: %s", excerpt(body))
	}
	return accepted.ExecutionID, err
}

// Eval runs source text without building an archive. Result.Value is the repr of the last expression, unless
// [WithLastExpression] disables that.
func (c *Client) Eval(ctx context.Context, code string, options ...Option) (*Result, error) {
	if err := checkText("the code", code); err != nil {
		return nil, err
	}
	return c.eval(ctx, evalBody{Code: &code}, options)
}

// EvalFiles runs source texts by file name without building an archive, as [Client.Eval] does for one text.
func (c *Client) EvalFiles(ctx context.Context, files map[string]string, options ...Option) (*Result, error) {
	var body evalBody
	for _, name := range sortedKeys(files) {
		if err := checkText("each name and text of files", name, files[name]); err != nil {
			return nil, err
		}
		body.Files = append(body.Files, evalFile{name, files[name]})
	}
	return c.eval(ctx, body, options)
}

func (c *Client) eval(ctx context.Context, body evalBody, options []Option) (*Result, error) {
	settings := newSettings(options)
	body.metadata = settings.metadata
	body.LastExpression = settings.lastExpression == nil || *settings.lastExpression
	body.PythonVersion = settings.pythonVersion
	if err := settings.check(); err != nil {
		return nil, err
	}
	if err := settings.checkFor("Eval"); err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, argumentError("invalid option: %v", err)
	}
	return c.result(ctx, evalRequest(encoded, settings, c.retry))
}

func (c *Client) result(ctx context.Context, req request) (*Result, error) {
	body, err := c.http.readAll(ctx, req)
	if err != nil {
		return nil, err
	}
	return parseResult(body)
}
