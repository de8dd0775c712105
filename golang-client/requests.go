package pyexec

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

const (
	apiPath  = "/api/v1"
	pageSize = 100
	longPoll = 60 * time.Second
	// A connection counts as lost if the server sends nothing for the expected time plus this margin. The margin of
	// an eval is larger, because the server sends nothing while the request waits in the queue and for the setup.
	margin     = 30 * time.Second
	evalMargin = 15 * time.Minute
)

// request is one HTTP request as plain data. idleTimeout is how long the server may send nothing before the
// connection counts as lost; 0 means no limit.
type request struct {
	method, path  string
	query, header map[string]string
	body          []byte
	upload        *upload
	content       io.Reader // a body that is sent as it is read
	idleTimeout   time.Duration
	retry         Retry
}

// upload is the body of a request that carries code.
type upload struct {
	source   Source
	metadata []byte
}

func uploadRequest(route string, source Source, settings *settings, key string, retry Retry) (request, error) {
	if err := settings.check(); err != nil {
		return request{}, err
	}
	fields := settings.metadata
	if fields.Entrypoint == "" {
		fields.Entrypoint = source.entrypoint
	}
	encoded, err := json.Marshal(fields)
	if err != nil {
		return request{}, argumentError("invalid option: %v", err)
	}
	if key == "" || !source.replayable {
		retry = Retry{}
	}
	return request{
		method:      "POST",
		path:        apiPath + "/" + route,
		header:      keyHeader(key),
		upload:      &upload{source, encoded},
		idleTimeout: 2 * margin,
		retry:       retry,
	}, nil
}

func evalRequest(body []byte, settings *settings, retry Retry) request {
	var idleTimeout time.Duration
	if seconds := settings.metadata.Config.TimeoutSeconds; seconds != nil {
		idleTimeout = time.Duration(*seconds*float64(time.Second)) + evalMargin
	}
	if settings.key == "" {
		retry = Retry{}
	}
	header := keyHeader(settings.key)
	header["Content-Type"] = "application/json"
	return request{
		method: "POST", path: apiPath + "/eval", header: header, body: body, idleTimeout: idleTimeout, retry: retry,
	}
}

var idPattern = regexp.MustCompile(`^[0-9A-Za-z_]*[0-9A-Za-z][0-9A-Za-z_]*$`)

func executionRequest(method, executionID, suffix string, retry Retry) (request, error) {
	if !idPattern.MatchString(executionID) {
		return request{}, argumentError("invalid execution ID '%s': it must look like exe_0123abcd", executionID)
	}
	return request{
		method:      method,
		path:        apiPath + "/executions/" + executionID + suffix,
		query:       map[string]string{},
		header:      map[string]string{},
		idleTimeout: 2 * margin,
		retry:       retry,
	}, nil
}

// waitRequest builds the long poll: the server answers when the execution ends, or after a minute.
func waitRequest(executionID string, retry Retry) (request, error) {
	req, err := executionRequest("GET", executionID, "", retry)
	if err == nil {
		req.query["wait"] = strconv.Itoa(int(longPoll.Seconds()))
		req.idleTimeout = longPoll + margin
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

func pageRequest(listing Listing, left int, cursor string, retry Retry) request {
	if left == 0 || left > pageSize {
		left = pageSize
	}
	query := map[string]string{"limit": strconv.Itoa(left)}
	if listing.Status != "" {
		query["status"] = string(listing.Status)
	}
	if listing.SessionID != "" {
		query["session_id"] = listing.SessionID
	}
	if cursor != "" {
		query["cursor"] = cursor
	}
	return request{method: "GET", path: apiPath + "/executions", query: query, idleTimeout: 2 * margin, retry: retry}
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

// filePath escapes the path of a file. It rejects "." and "..", which proxies resolve: the request would be for another
// endpoint.
func filePath(path string) (string, error) {
	const work = "/work/"
	if strings.HasPrefix(path, "/") && !strings.HasPrefix(path, work) {
		return "", argumentError("invalid file path '%s': it must be below /work", path)
	}
	relative := strings.TrimPrefix(path, work)
	names := strings.Split(relative, "/")
	if strings.Trim(relative, "/") == "" || slices.Contains(names, ".") || slices.Contains(names, "..") {
		return "", argumentError("invalid file path '%s': it must have a name, and no '.' or '..'", path)
	}
	for index, name := range names {
		names[index] = url.PathEscape(name)
	}
	return strings.Join(names, "/"), nil
}

func sortedKeys[V any](values map[string]V) []string {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
