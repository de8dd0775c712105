package pyexec

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestBrokenStreamResumesAfterTheLastEvent(t *testing.T) {
	for _, ending := range []string{"cut", ": a quiet end\n"} {
		server := serve(t, stream(submitted, first, second[:20], ending), stream(second, finished))
		var output []string
		result, err := server.client.Run(t.Context(), Text("print('ab')"), OnEvent(func(event Event) {
			if chunk, ok := event.(Output); ok {
				output = append(output, string(chunk.Data))
			}
		}))
		if err != nil || !result.OK() || !reflect.DeepEqual(output, []string{"a", "b"}) {
			t.Fatalf("%v %v %v", result, err, output)
		}
		if got := server.paths()[1]; got != "GET /api/v1/executions/exe_1/events" {
			t.Error(got)
		}
		if got := server.headers("Last-Event-ID")[1]; got != "2.1" {
			t.Error(got)
		}
	}
}

func TestStreamResumesWhileTheServerRestarts(t *testing.T) {
	server := serve(t, stream(submitted, first), hangUp, respond(503, ""), stream(second), stream(finished))
	var last Event
	for event, err := range server.client.Events(t.Context(), "exe_1", "0.0") {
		if err != nil {
			t.Fatal(err)
		}
		last = event
	}
	if _, ended := last.(Ended); !ended {
		t.Errorf("the last event is %#v", last)
	}
	want := []string{"0.0", "2.1", "2.1", "2.1", "2.2"}
	if got := server.headers("Last-Event-ID"); !reflect.DeepEqual(got, want) {
		t.Error(got)
	}
}

func TestResumingGivesUpAfterSomeAttempts(t *testing.T) {
	server := serve(t, stream(submitted, "cut"))
	var lost *ConnectionError
	if _, err := server.client.Run(t.Context(), Text("x")); !errors.As(err, &lost) {
		t.Error(err)
	}
	if got := len(server.paths()); got < 4 {
		t.Errorf("%d requests", got)
	}
}

func TestStreamThatBreaksBeforeTheIDIsKnownIsNotRetried(t *testing.T) {
	server := serve(t, stream(": keep-alive\n\n", "cut"))
	var lost *ConnectionError
	if _, err := server.client.Run(t.Context(), Text("x")); !errors.As(err, &lost) || len(server.paths()) != 1 {
		t.Error(err, server.paths())
	}
}

func TestContextCancelsEveryCall(t *testing.T) {
	hold := func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() }
	server := serve(t, hold, func(writer http.ResponseWriter, request *http.Request) {
		stream(submitted)(writer, request)
		writer.(http.Flusher).Flush()
		hold(writer, request)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := server.client.Wait(ctx, "exe_1")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "execution exe_1 has not ended after") {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	_, err = server.client.Run(ctx, Text("x"), OnEvent(func(Event) { cancel() }))
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestLeavingTheLoopClosesTheConnection(t *testing.T) {
	gone := make(chan struct{})
	server := serve(t, func(writer http.ResponseWriter, request *http.Request) {
		stream(submitted)(writer, request)
		writer.(http.Flusher).Flush()
		<-request.Context().Done()
		close(gone)
	})
	for range server.client.Stream(t.Context(), Text("x")) {
		break
	}
	<-gone
}

func TestIdleTimeout(t *testing.T) {
	server := serve(t, func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() })
	req, err := executionRequest("GET", "exe_1", "", Retry{})
	if err != nil {
		t.Fatal(err)
	}
	req.idleTimeout = 50 * time.Millisecond
	var lost *ConnectionError
	if _, err := server.client.result(t.Context(), req); !errors.As(err, &lost) || lost.Reason != "the server stopped responding" {
		t.Error(err)
	}
}
