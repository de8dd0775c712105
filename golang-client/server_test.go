package pyexec

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// flawedServer is an HTTP server that answers each request with the next of the given behaviours, and records the requests.
type flawedServer struct {
	*httptest.Server
	client *Client

	lock       sync.Mutex
	behaviours []http.HandlerFunc
	requests   []*http.Request
	bodies     [][]byte
}

func serve(t *testing.T, behaviours ...http.HandlerFunc) *flawedServer {
	t.Helper()
	flawed := &flawedServer{behaviours: behaviours}
	flawed.Server = httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		flawed.lock.Lock()
		flawed.requests = append(flawed.requests, request)
		flawed.bodies = append(flawed.bodies, body)
		var next http.HandlerFunc = hangUp
		if len(flawed.behaviours) > 0 {
			next, flawed.behaviours = flawed.behaviours[0], flawed.behaviours[1:]
		}
		flawed.lock.Unlock()
		next(writer, request)
	}))
	t.Cleanup(flawed.Close)
	soon := Retry{Attempts: 3, First: 10 * time.Millisecond, Longest: time.Second}
	client, err := New(flawed.URL+"/", WithRetry(soon), WithResume(soon))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	flawed.client = client
	return flawed
}

func (f *flawedServer) headers(name string) []string {
	f.lock.Lock()
	defer f.lock.Unlock()
	var values []string
	for _, request := range f.requests {
		values = append(values, request.Header.Get(name))
	}
	return values
}

func (f *flawedServer) paths() []string {
	f.lock.Lock()
	defer f.lock.Unlock()
	var paths []string
	for _, request := range f.requests {
		paths = append(paths, request.Method+" "+request.URL.RequestURI())
	}
	return paths
}

func respond(status int, body string, header ...string) http.HandlerFunc {
	return func(writer http.ResponseWriter, _ *http.Request) {
		for index := 0; index < len(header); index += 2 {
			writer.Header().Set(header[index], header[index+1])
		}
		writer.WriteHeader(status)
		fmt.Fprint(writer, body)
	}
}

func hangUp(http.ResponseWriter, *http.Request) {
	panic(http.ErrAbortHandler)
}

// stream sends these parts of an event stream; "cut" breaks the connection.
func stream(parts ...string) http.HandlerFunc {
	return func(writer http.ResponseWriter, request *http.Request) {
		writer.Header().Set("Content-Type", "text/event-stream")
		for _, part := range parts {
			if part == "cut" {
				writer.(http.Flusher).Flush()
				hangUp(writer, request)
			}
			fmt.Fprint(writer, part)
		}
	}
}

// archiveOf returns the tar in a multipart body.
func archiveOf(body []byte) string {
	_, rest, _ := strings.Cut(string(body), "application/x-tar\r\n\r\n")
	return rest[:max(0, strings.LastIndex(rest, "\r\n--"))]
}

const (
	submitted = "id: 1.0\nevent: submitted\ndata: {\"execution_id\": \"exe_1\", \"seq\": 1, \"type\": \"submitted\"}\n\n"
	first     = "id: 2.1\nevent: output\ndata: {\"stream\": \"stdout\", \"data\": \"YQ==\"}\n\n"
	second    = "id: 2.2\nevent: output\ndata: {\"stream\": \"stdout\", \"data\": \"Yg==\"}\n\n"
	finished  = "id: 3.2\nevent: finished\ndata: {\"execution_id\": \"exe_1\", \"status\": \"completed\", \"exit_code\": 0}\n\n"
	done      = `{"execution_id": "exe_1", "status": "completed", "exit_code": 0}`
	underWay  = `{"execution_id": "exe_1", "status": "running"}`
)
