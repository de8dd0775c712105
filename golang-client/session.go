package pyexec

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"reflect"
	"time"
)

// SessionInfo is the state of a session. Fields that do not apply are zero or empty.
type SessionInfo struct {
	ID                  string    `json:"id"`
	Status              string    `json:"status"` // open or closed
	CreatedAt           time.Time `json:"created_at"`
	ExpiresAt           time.Time `json:"expires_at"` // when it closes if no request uses it before; zero while it is in use
	Replica             string    `json:"replica"`
	DockerImage         string    `json:"docker_image"`
	IdleTimeoutSeconds  float64   `json:"idle_timeout_seconds"`
	LifetimeSeconds     float64   `json:"lifetime_seconds"`
	InterpreterRestarts int       `json:"interpreter_restarts"` // each has lost the variables
	CloseReason         string    `json:"close_reason"`         // deleted, idle, lifetime, lost, memory or shutdown
	Cells               Cells     `json:"cells"`

	// Raw is the JSON object of the response, including fields that only newer servers send.
	Raw json.RawMessage `json:"-"`
}

// Cells contains the cells of a session that have not ended.
type Cells struct {
	Waiting int    `json:"waiting"`
	Running string `json:"running"` // the execution ID of the cell that runs, if any
}

// IsOpen reports whether the session accepts cells.
func (i *SessionInfo) IsOpen() bool { return i.Status == "open" }

// Session is an interpreter on the server that keeps its variables between calls.
type Session struct {
	ID     string
	client *Client
	info   *SessionInfo
}

// Info returns the state of the session in the response that opened or found it.
func (s *Session) Info() *SessionInfo { return s.info }

// OpenSession opens a session. It stays open until [Session.Close], or until one of its timeouts.
//
// The options of its environment ([WithImage], [WithRequirements], [WithPreCommands], [WithEnv]) and the limits apply;
// [WithTimeout] is the default for its cells. See also [WithIdleTimeout], [WithLifetime] and [WithSource].
func (c *Client) OpenSession(ctx context.Context, options ...Option) (*Session, error) {
	settings := newSettings(options)
	if err := settings.check(); err != nil {
		return nil, err
	}
	if err := settings.checkFor("OpenSession"); err != nil {
		return nil, err
	}
	if settings.key != "" {
		return nil, argumentError("WithIdempotencyKey has no effect in OpenSession")
	}
	body, err := json.Marshal(settings.metadata)
	if err != nil {
		return nil, argumentError("invalid option: %v", err)
	}
	req := request{method: "POST", path: apiPath + "/sessions", idleTimeout: evalMargin}
	if settings.source == nil {
		req.header, req.body = jsonHeader(), body
	} else {
		req.upload = &upload{*settings.source, body}
	}
	return c.session(ctx, req)
}

// GetSession returns an existing session.
func (c *Client) GetSession(ctx context.Context, sessionID string) (*Session, error) {
	req, err := sessionRequest("GET", sessionID, "", c.retry)
	if err != nil {
		return nil, err
	}
	return c.session(ctx, req)
}

// Sessions returns all sessions.
func (c *Client) Sessions(ctx context.Context) ([]*SessionInfo, error) {
	req := request{method: "GET", path: apiPath + "/sessions", idleTimeout: 2 * margin, retry: c.retry}
	var listed struct {
		Sessions []json.RawMessage `json:"sessions"`
	}
	body, err := c.http.json(ctx, req, &listed)
	if err != nil {
		return nil, err
	}
	if listed.Sessions == nil {
		return nil, answerError("invalid response from the server: sessions is missing: %s", excerpt(body))
	}
	infos := make([]*SessionInfo, len(listed.Sessions))
	for index, entry := range listed.Sessions {
		if infos[index], err = parseSession(entry); err != nil {
			return nil, err
		}
	}
	return infos, nil
}

// Eval runs code in the session, after the cells before it, and returns its result. Result.Value is the repr of the
// last expression, or nil if its value is None. [WithTimeout] and [WithIdempotencyKey] apply. Cancelling ctx interrupts
// the code.
func (s *Session) Eval(ctx context.Context, code string, options ...Option) (*Result, error) {
	req, err := s.cellRequest("/eval", code, newSettings(options))
	if err != nil {
		return nil, err
	}
	req.idleTimeout = 0 // a cell waits for those before it, for any length of time
	return s.client.result(ctx, req)
}

// Stream runs code in the session and yields its events as they arrive; the last one is [Ended]. It stops after the
// first error. Leaving the loop early closes the connection, which interrupts the code.
func (s *Session) Stream(ctx context.Context, code string, options ...Option) iter.Seq2[Event, error] {
	req, err := s.cellRequest("/eval", code, newSettings(options))
	if err != nil {
		return func(yield func(Event, error) bool) { yield(nil, err) }
	}
	req.header["Accept"] = "text/event-stream"
	return s.client.streamEvents(ctx, req, "", "")
}

// Submit queues code and returns its execution ID at once. [Client.Wait] returns the result.
func (s *Session) Submit(ctx context.Context, code string, options ...Option) (string, error) {
	settings := newSettings(options)
	if settings.key == "" {
		settings.key = newKey()
	}
	req, err := s.cellRequest("/eval/async", code, settings)
	if err != nil {
		return "", err
	}
	return s.client.accepted(ctx, req)
}

// Interrupt raises KeyboardInterrupt in the code that runs; the variables stay. It returns false if none runs.
func (s *Session) Interrupt(ctx context.Context) (bool, error) {
	req, err := sessionRequest("POST", s.ID, "/interrupt", Retry{}) // a second one could hit the next cell
	if err != nil {
		return false, err
	}
	var answer struct {
		Interrupted bool `json:"interrupted"`
	}
	_, err = s.client.http.json(ctx, req, &answer)
	return answer.Interrupted, err
}

// Restart starts a new interpreter. The files stay, and the variables are lost.
func (s *Session) Restart(ctx context.Context) (*SessionInfo, error) {
	return s.state(ctx, "POST", "/restart", Retry{})
}

// Refresh returns the current state of the session.
func (s *Session) Refresh(ctx context.Context) (*SessionInfo, error) {
	return s.state(ctx, "GET", "", s.client.retry)
}

// Close closes the session, ends its cells and deletes its files. A session that is closed already is no error.
func (s *Session) Close(ctx context.Context) error {
	_, err := s.state(ctx, "DELETE", "", s.client.retry)
	if errors.Is(err, ErrSessionClosed) || errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func (s *Session) state(ctx context.Context, method, suffix string, retry Retry) (*SessionInfo, error) {
	req, err := sessionRequest(method, s.ID, suffix, retry)
	if err != nil {
		return nil, err
	}
	found, err := s.client.session(ctx, req)
	if err != nil {
		return nil, err
	}
	return found.info, nil
}

func (s *Session) cellRequest(suffix, code string, settings *settings) (request, error) {
	if err := checkText("the code", code); err != nil {
		return request{}, err
	}
	if err := settings.checkFor("a session"); err != nil {
		return request{}, err
	}
	unused := settings.metadata
	unused.Config.TimeoutSeconds, unused.Displays = nil, false // a cell always returns its displays
	if !reflect.DeepEqual(unused, metadata{}) {
		return request{}, argumentError(
			"code in a session takes only WithTimeout and WithIdempotencyKey; the other options are for OpenSession")
	}
	body, err := json.Marshal(struct {
		Code           string   `json:"code"`
		TimeoutSeconds *float64 `json:"timeout_seconds,omitempty"`
	}{code, settings.metadata.Config.TimeoutSeconds})
	if err != nil {
		return request{}, argumentError("invalid option: %v", err)
	}
	retry := s.client.retry
	if settings.key == "" {
		retry = Retry{}
	}
	req, err := sessionRequest("POST", s.ID, suffix, retry)
	if err != nil {
		return request{}, err
	}
	req.body = body
	req.header["Content-Type"] = "application/json"
	if settings.key != "" {
		req.header["Idempotency-Key"] = settings.key
	}
	return req, nil
}

func (c *Client) session(ctx context.Context, req request) (*Session, error) {
	var raw json.RawMessage
	if _, err := c.http.json(ctx, req, &raw); err != nil {
		return nil, err
	}
	info, err := parseSession(raw)
	if err != nil {
		return nil, err
	}
	return &Session{ID: info.ID, client: c, info: info}, nil
}

func parseSession(body []byte) (*SessionInfo, error) {
	info := &SessionInfo{Raw: body}
	if err := json.Unmarshal(body, info); err != nil && !isOutOfRange(err) {
		return nil, answerError("invalid response from the server: not a session: %v in %s", err, excerpt(body))
	}
	if info.ID == "" || info.Status == "" {
		return nil, answerError("invalid response from the server: not a session: %s", excerpt(body))
	}
	return info, nil
}

func sessionRequest(method, sessionID, suffix string, retry Retry) (request, error) {
	if !idPattern.MatchString(sessionID) {
		return request{}, argumentError("invalid session ID '%s': it must look like ses_0123abcd", sessionID)
	}
	return request{
		method:      method,
		path:        apiPath + "/sessions/" + sessionID + suffix,
		query:       map[string]string{},
		header:      map[string]string{},
		idleTimeout: 2 * margin,
		retry:       retry,
	}, nil
}

func jsonHeader() map[string]string {
	return map[string]string{"Content-Type": "application/json"}
}
