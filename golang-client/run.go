package pyexec

import (
	"context"
	"encoding/json"
	"iter"
)

// Run runs the source and waits for its end, however long that takes. [OnEvent] sees what happens meanwhile.
//
// Ending ctx hangs up, and that ends the run, unless [WithIdempotencyKey] was given: then the run goes on, and
// the same call with the same key finds it again.
func (c *Client) Run(ctx context.Context, source Source, options ...Option) (*Result, error) {
	settings := newSettings(options)
	for event, err := range c.stream(ctx, source, settings) {
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
	panic("pyexec: an event stream ends with its last event or an error")
}

// Stream runs the source and gives its events as they happen, an [Ended] last. An error is the last thing it
// gives. Leaving the loop early hangs up, as in [Client.Run].
func (c *Client) Stream(ctx context.Context, source Source, options ...Option) iter.Seq2[Event, error] {
	return c.stream(ctx, source, newSettings(options))
}

func (c *Client) stream(ctx context.Context, source Source, settings *settings) iter.Seq2[Event, error] {
	req, err := uploadRequest("exec/sync", source, settings, settings.key, c.retry)
	if err != nil {
		return func(yield func(Event, error) bool) { yield(nil, err) }
	}
	req.header["Accept"] = "text/event-stream"
	return c.follow(ctx, req, "", "")
}

// Submit hands the source over and returns the execution's id at once. The run goes on without us.
func (c *Client) Submit(ctx context.Context, source Source, options ...Option) (string, error) {
	settings := newSettings(options)
	key := settings.key
	if key == "" {
		key = newKey()
	}
	req, err := uploadRequest("exec/async", source, settings, key, c.retry)
	if err != nil {
		return "", err
	}
	var accepted struct {
		ExecutionID string `json:"execution_id"`
	}
	body, err := c.http.json(ctx, req, &accepted)
	if err == nil && accepted.ExecutionID == "" {
		err = answerError("the server's answer has no execution_id: %s", excerpt(body))
	}
	return accepted.ExecutionID, err
}

// Eval runs a text without an archive. [WithLastExpression] is on unless told otherwise: Result.Value is then
// the last expression's repr.
func (c *Client) Eval(ctx context.Context, code string, options ...Option) (*Result, error) {
	return c.eval(ctx, evalBody{Code: code}, options)
}

// EvalFiles runs texts by file name without an archive, as [Client.Eval] runs one.
func (c *Client) EvalFiles(ctx context.Context, files map[string]string, options ...Option) (*Result, error) {
	var body evalBody
	for _, name := range sortedKeys(files) {
		body.Files = append(body.Files, evalFile{name, files[name]})
	}
	return c.eval(ctx, body, options)
}

func (c *Client) eval(ctx context.Context, body evalBody, options []Option) (*Result, error) {
	settings := newSettings(options)
	body.metadata = settings.metadata
	body.LastExpression, body.PythonVersion = settings.lastExpression, settings.pythonVersion
	encoded, err := json.Marshal(body)
	if err != nil { // only a number that JSON has no word for
		return nil, argumentError("an option cannot be sent: %v", err)
	}
	return c.result(ctx, evalRequest(encoded, settings, c.retry))
}

func (c *Client) result(ctx context.Context, req request) (*Result, error) {
	answer, err := c.http.open(ctx, req)
	if err != nil {
		return nil, err
	}
	body, err := answer.all()
	if err != nil {
		return nil, err
	}
	return parseResult(body)
}
