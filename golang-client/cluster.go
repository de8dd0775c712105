package pyexec

import (
	"context"
	"encoding/json"
	"time"
)

// Capacity is the total and the used amount of a resource.
type Capacity struct {
	Total int64 `json:"total"`
	Used  int64 `json:"used"`
}

// PoolImage is the number of idle and of starting sandboxes of an image.
type PoolImage struct {
	Image    string `json:"image"`
	Idle     int    `json:"idle"`
	Starting int    `json:"starting"`
}

// SandboxReuse counts used sandboxes that were kept for another program, or removed, since the start.
type SandboxReuse struct {
	Served    int64 `json:"served"`
	Discarded int64 `json:"discarded"`
}

// SessionCount is the number of open sessions of a server.
type SessionCount struct {
	Open int `json:"open"`
}

// Replica is the state of a server. One that does not answer has only a part of the fields, and a warning.
type Replica struct {
	Name          string        `json:"name"`
	Address       string        `json:"address,omitempty"` // empty for tenants that do not operate the servers
	Version       string        `json:"version"`
	Ready         bool          `json:"ready"`    // the server can accept work
	Warnings      []string      `json:"warnings"` // sentences for the operator
	Leader        bool          `json:"leader"`
	Draining      bool          `json:"draining"` // the server shuts down
	Slots         Capacity      `json:"slots"`
	MemoryMB      *Capacity     `json:"memory_mb,omitempty"`
	Pool          []PoolImage   `json:"pool"`
	Reuse         *SandboxReuse `json:"reuse,omitempty"`
	Sessions      *SessionCount `json:"sessions,omitempty"`
	UptimeSeconds *float64      `json:"uptime_seconds,omitempty"`
}

// TenantQueue is the number of executions of a tenant that wait, and of those that hold a slot.
type TenantQueue struct {
	Tenant  string `json:"tenant"`
	Waiting int    `json:"waiting"`
	Running int    `json:"running"`
}

// Cluster is the state of all servers, by name, the queue by tenant, and the name of the leader, or "" if it is not known.
type Cluster struct {
	Replicas []Replica     `json:"replicas"`
	Queue    []TenantQueue `json:"queue"`
	Leader   string        `json:"leader"`

	// Raw is the JSON object of the response, including fields that only newer servers send.
	Raw json.RawMessage `json:"-"`
}

// Cluster returns the state of all replicas, the queue of each tenant, and the leader; at most two seconds old. A token of
// a tenant that does not operate the servers sees only its own queue, and no addresses.
func (c *Client) Cluster(ctx context.Context) (*Cluster, error) {
	req := request{method: "GET", path: apiPath + "/cluster", idleTimeout: 2 * margin, retry: c.retry}
	var received Cluster
	body, err := c.http.json(ctx, req, &received)
	if err != nil {
		return nil, err
	}
	if received.Replicas == nil {
		return nil, answerError("invalid response from the server: not the state of a cluster: %s", excerpt(body))
	}
	received.Raw = body
	return &received, nil
}

// TimelineEvent is an event of an execution. Fields that do not apply are nil or empty.
type TimelineEvent struct {
	Type      string    `json:"type"` // newer servers may send other types
	At        time.Time `json:"at"`
	Replica   string    `json:"replica,omitempty"` // it was responsible for the execution then
	Image     string    `json:"image,omitempty"`   // the name of the image, or the digest of the one that runs
	Reason    string    `json:"reason,omitempty"`  // why the execution returned to the queue
	ExitCode  *int      `json:"exit_code,omitempty"`
	ErrorType string    `json:"error_type,omitempty"`
}

// TimelinePhase is a phase of an execution, and its duration; for a phase in progress, the duration so far.
type TimelinePhase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Timeline is the events and the phases of an execution, in order.
type Timeline struct {
	ID     string          `json:"id"`
	Events []TimelineEvent `json:"events"`
	Phases []TimelinePhase `json:"phases"`

	// Raw is the JSON object of the response, including fields that only newer servers send.
	Raw json.RawMessage `json:"-"`
}

// Timeline returns the events of an execution, with the replica of each, and the duration of each phase.
func (c *Client) Timeline(ctx context.Context, executionID string) (*Timeline, error) {
	req, err := executionRequest("GET", executionID, "/timeline", c.retry)
	if err != nil {
		return nil, err
	}
	var received Timeline
	body, err := c.http.json(ctx, req, &received)
	if err != nil {
		return nil, err
	}
	if received.ID == "" || received.Events == nil {
		return nil, answerError("invalid response from the server: not a timeline: %s", excerpt(body))
	}
	received.Raw = body
	return &received, nil
}
