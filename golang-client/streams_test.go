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

func TestNoEventsAfterTheLastOne(t *testing.T) {
	server := serve(t, respond(204, ""))
	for event, err := range server.client.Events(t.Context(), "exe_1", "3.2") {
		t.Error(event, err)
	}
}

func TestNoEventsAfterALostConnectionAreAnError(t *testing.T) {
	server := serve(t, stream(submitted, first, "cut"), respond(204, ""))
	var invalid *AnswerError
	_, err := server.client.Run(t.Context(), Text("x"))
	// The Python client has the same message.
	if !errors.As(err, &invalid) || err.Error() != "the server sent no more events, but the execution has not ended" {
		t.Error(err)
	}
}

func TestResponseThatIsNoEventStreamIsAnAnswerError(t *testing.T) {
	server := serve(t, respond(200, "<html>log in</html>"))
	var invalid *AnswerError
	if _, err := server.client.Run(t.Context(), Text("x")); !errors.As(err, &invalid) {
		t.Error(err)
	}
}

func TestReadsWhoseBodyIsCutAreRetried(t *testing.T) {
	cut := func(writer http.ResponseWriter, _ *http.Request) {
		writer.Header().Set("Content-Length", "100")
		_, _ = writer.Write([]byte(`{"execution_id"`))
	}
	server := serve(t, cut, respond(200, `{"execution_id": "exe_1", "status": "running"}`))
	if result, err := server.client.Get(t.Context(), "exe_1"); err != nil || result.Status != Running {
		t.Error(result, err)
	}
}

func TestSwitchedProtocolDoesNotHang(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	server := serve(t, func(writer http.ResponseWriter, _ *http.Request) {
		connection, _, err := writer.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer connection.Close()
		_, _ = connection.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"))
		<-release
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var rejected *Error
	if _, err := server.client.Get(ctx, "exe_1"); !errors.As(err, &rejected) || rejected.Status != 101 {
		t.Error(err)
	}
}

func TestWaitPausesIfTheServerDoesNot(t *testing.T) {
	running := respond(200, `{"execution_id": "exe_1", "status": "running"}`)
	server := serve(t, running, running, running, running, running, running)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := server.client.Wait(ctx, "exe_1")
	if count := len(server.paths()); !errors.Is(err, context.DeadlineExceeded) || count != 1 {
		t.Error(count, err)
	}
}

func TestListThatRepeatsItsCursorEnds(t *testing.T) {
	page := respond(200, `{"executions": [], "next_cursor": "x"}`)
	server := serve(t, page, page, page)
	for _, err := range server.client.List(t.Context(), Listing{}) {
		var invalid *AnswerError
		if !errors.As(err, &invalid) || len(server.paths()) != 2 {
			t.Error(err, server.paths())
		}
	}
}
