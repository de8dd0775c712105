package pyexec

import (
	"crypto/rand"
	"encoding/json"
	"net/url"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

const (
	api      = "/api/v1"
	mostPage = 100
	poll     = 60 * time.Second
	// How long the server may be silent beyond what was asked of it, before the connection counts as broken.
	// An eval answers as a whole: beside the run itself it may have to wait for a slot and for setup.
	margin     = 30 * time.Second
	evalMargin = 15 * time.Minute
)

// request is one request as data; nothing is sent here. silence is how long the server may say nothing before
// the connection counts as broken, 0 for ever.
type request struct {
	method, path  string
	query, header map[string]string
	body          []byte
	upload        *upload
	silence       time.Duration
	retry         Retry
}

// upload is the body of a request that carries code.
type upload struct {
	source   Source
	metadata []byte
}

func uploadRequest(route string, source Source, settings *settings, key string, retry Retry) (request, error) {
	encoded, err := json.Marshal(settings.metadata)
	if err != nil { // only a number that JSON has no word for
		return request{}, argumentError("an option cannot be sent: %v", err)
	}
	if key == "" || !source.replayable {
		retry = Retry{}
	}
	return request{
		method:  "POST",
		path:    api + "/" + route,
		header:  keyHeader(key),
		upload:  &upload{source, encoded},
		silence: 2 * margin,
		retry:   retry,
	}, nil
}

func evalRequest(body []byte, settings *settings, retry Retry) request {
	var silence time.Duration
	if seconds := settings.metadata.Config.TimeoutSeconds; seconds != nil {
		silence = time.Duration(*seconds*float64(time.Second)) + evalMargin
	}
	if settings.key == "" {
		retry = Retry{}
	}
	header := keyHeader(settings.key)
	header["Content-Type"] = "application/json"
	return request{method: "POST", path: api + "/eval", header: header, body: body, silence: silence, retry: retry}
}

var idPattern = regexp.MustCompile(`^[0-9A-Za-z_]*[0-9A-Za-z][0-9A-Za-z_]*$`)

func executionRequest(method, executionID, rest string, retry Retry) (request, error) {
	if !idPattern.MatchString(executionID) {
		return request{}, argumentError("an execution's id looks like exe_0123abcd, not '%s'", executionID)
	}
	return request{
		method:  method,
		path:    api + "/executions/" + executionID + rest,
		query:   map[string]string{},
		header:  map[string]string{},
		silence: 2 * margin,
		retry:   retry,
	}, nil
}

// waitRequest is the long poll: held by the server until the execution ends, or for a minute.
func waitRequest(executionID string, retry Retry) (request, error) {
	req, err := executionRequest("GET", executionID, "", retry)
	if err == nil {
		req.query["wait"] = strconv.Itoa(int(poll.Seconds()))
		req.silence = poll + margin
	}
	return req, err
}

func eventsRequest(executionID, after string, retry Retry) (request, error) {
	req, err := executionRequest("GET", executionID, "/events", retry)
	if err == nil {
		req.header["Accept"] = "text/event-stream"
		if after != "" {
			req.header["Last-Event-ID"] = after
		}
	}
	return req, err
}

func pageRequest(status Status, left int, cursor string, retry Retry) request {
	if left == 0 || left > mostPage {
		left = mostPage
	}
	query := map[string]string{"limit": strconv.Itoa(left)}
	if status != "" {
		query["status"] = string(status)
	}
	if cursor != "" {
		query["cursor"] = cursor
	}
	return request{method: "GET", path: api + "/executions", query: query, silence: 2 * margin, retry: retry}
}

func keyHeader(key string) map[string]string {
	if key == "" {
		return map[string]string{}
	}
	return map[string]string{"Idempotency-Key": key}
}

func newKey() string {
	return rand.Text()
}

func escapePath(path string) string {
	names := strings.Split(path, "/")
	for index, name := range names {
		names[index] = url.PathEscape(name)
	}
	return strings.Join(names, "/")
}

func sortedKeys[V any](values map[string]V) []string {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
