package pyexec

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestReadsAreRetried(t *testing.T) {
	server := serve(t, hangUp, respond(503, ""), respond(200, underWay))
	result, err := server.client.Get(t.Context(), "exe_1")
	if err != nil || result.Status != Running {
		t.Error(result, err)
	}
}

func TestWaitUsesLongPolling(t *testing.T) {
	server := serve(t, respond(200, underWay), hangUp, respond(200, done))
	result, err := server.client.Wait(t.Context(), "exe_1")
	if err != nil || !result.OK() {
		t.Error(result, err)
	}
	for _, path := range server.paths() {
		if path != "GET /api/v1/executions/exe_1?wait=60" {
			t.Error(path)
		}
	}
}

func TestSubmissionIsRetriedWithTheSameKeyAndBytes(t *testing.T) {
	server := serve(t, hangUp, respond(503, ""), respond(202, `{"execution_id": "exe_1"}`),
		respond(202, `{"execution_id": "exe_2"}`))
	id, err := server.client.Submit(t.Context(), Text("print(1)"))
	if err != nil || id != "exe_1" {
		t.Fatal(id, err)
	}
	if _, err := server.client.Submit(t.Context(), Text("print(1)")); err != nil {
		t.Fatal(err)
	}
	keys := server.headers("Idempotency-Key")
	if keys[0] == "" || keys[0] != keys[1] || keys[1] != keys[2] || keys[2] == keys[3] {
		t.Error(keys)
	}
	one := archiveOf(server.bodies[2])
	if len(one)%512 != 0 || one == "" || one != archiveOf(server.bodies[3]) {
		t.Errorf("%d and %d bytes", len(one), len(archiveOf(server.bodies[3])))
	}
	if metadata := bytes.Index(server.bodies[2], []byte(`name="metadata"`)); metadata < 0 ||
		metadata > bytes.Index(server.bodies[2], []byte(`name="tar"`)) {
		t.Error("the metadata does not come first")
	}
}

func TestRunWithoutAKeyIsNotRetried(t *testing.T) {
	server := serve(t, respond(503, ""), respond(503, ""), stream(submitted, finished), respond(503, ""))
	if _, err := server.client.Run(t.Context(), Text("x")); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	if _, err := server.client.Run(t.Context(), Text("x"), WithIdempotencyKey("mine")); err != nil {
		t.Error(err)
	}
	tar := Reader(bytes.NewReader(make([]byte, 1024)))
	if _, err := server.client.Submit(t.Context(), tar); !errors.Is(err, ErrUnavailable) || len(server.paths()) != 4 {
		t.Error("a stream cannot be sent twice", err, server.paths())
	}
}

func TestRejectedRequestsAreNotRetried(t *testing.T) {
	server := serve(t, respond(400, `{"error": "too much", "code": "over_ceiling", "field": "config.memory_mb"}`))
	_, err := server.client.Submit(t.Context(), Text("x"), WithMemoryMB(1<<30))
	var refused *Error
	if !errors.As(err, &refused) || !errors.Is(err, ErrInvalidRequest) || refused.Code != "over_ceiling" ||
		refused.Field != "config.memory_mb" || refused.Status != 400 || len(refused.Body) == 0 {
		t.Errorf("%#v", err)
	}
}

func TestFullQueueIsRetriedUnlessTheWaitIsTooLong(t *testing.T) {
	server := serve(t, respond(429, "", "Retry-After", "0"), respond(202, `{"execution_id": "exe_1"}`),
		respond(429, "", "Retry-After", "3600"))
	if _, err := server.client.Submit(t.Context(), Text("x")); err != nil {
		t.Error(err)
	}
	_, err := server.client.Submit(t.Context(), Text("x"))
	var full *Error
	if !errors.Is(err, ErrQueueFull) || !errors.As(err, &full) || *full.RetryAfter != time.Hour {
		t.Error(err)
	}
}

func TestRetryAfterIsRespected(t *testing.T) {
	server := serve(t, respond(503, "", "Retry-After", "1"), respond(200, done))
	start := time.Now()
	if _, err := server.client.Get(t.Context(), "exe_1"); err != nil || time.Since(start) < time.Second {
		t.Error(err, time.Since(start))
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	server := serve(t, respond(302, "", "Location", "/elsewhere"))
	var refused *Error
	if _, err := server.client.Get(t.Context(), "exe_1"); !errors.As(err, &refused) || refused.Status != 302 {
		t.Error(err)
	}
}

func TestResponsesOfAnotherServerAreAnError(t *testing.T) {
	server := serve(t, respond(200, "<html>welcome</html>"), respond(202, `{"id": "exe_1"}`), respond(200, `{}`))
	_, get := server.client.Get(t.Context(), "exe_1")
	_, submit := server.client.Submit(t.Context(), Text("x"))
	_, kill := server.client.Kill(t.Context(), "exe_1")
	for index, err := range []error{get, submit, kill} {
		var bad *AnswerError
		if !errors.As(err, &bad) {
			t.Error(index, err)
		}
	}
}

func TestTokenIsSent(t *testing.T) {
	server := serve(t, respond(200, done))
	client, err := New(server.URL, WithToken("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get(t.Context(), "exe_1"); err != nil || server.headers("Authorization")[0] != "Bearer secret" {
		t.Error(err, server.headers("Authorization"))
	}
}

func TestPagesAreFetchedOnlyWhenNeeded(t *testing.T) {
	page := `{"executions": [` + done + "," + done + `], "next_cursor": "c"}`
	server := serve(t, respond(200, page), respond(200, page))
	count := 0
	for _, err := range server.client.List(t.Context(), Listing{Status: Completed, Limit: 3, SessionID: "ses_1"}) {
		if err != nil {
			t.Fatal(err)
		}
		count++
	}
	want := []string{
		"GET /api/v1/executions?limit=3&session_id=ses_1&status=completed",
		"GET /api/v1/executions?cursor=c&limit=1&session_id=ses_1&status=completed",
	}
	if count != 3 || !reflect.DeepEqual(server.paths(), want) {
		t.Error(count, server.paths())
	}
}

func TestLogsAndFilesAreRawBytes(t *testing.T) {
	server := serve(t, respond(200, "\xff\n"), respond(200, "tar"), respond(200, "one"))
	logs, err := server.client.Logs(t.Context(), "exe_1", OnlyStream("stderr"), FollowLogs())
	if err != nil {
		t.Fatal(err)
	}
	files, err := server.client.Files(t.Context(), "exe_1")
	if err != nil {
		t.Fatal(err)
	}
	file, err := server.client.File(t.Context(), "exe_1", "out/ü b.csv")
	if err != nil {
		t.Fatal(err)
	}
	for want, content := range map[string]io.ReadCloser{"\xff\n": logs, "tar": files, "one": file} {
		if got, err := io.ReadAll(content); err != nil || string(got) != want || content.Close() != nil {
			t.Errorf("%q %v", got, err)
		}
	}
	base := "GET /api/v1/executions/exe_1/"
	want := []string{base + "logs?follow=1&stream=stderr", base + "files", base + "files/out/%C3%BC%20b.csv"}
	if !reflect.DeepEqual(server.paths(), want) {
		t.Error(server.paths())
	}
}

func TestErrorOfTheSourceIsReturnedUnchanged(t *testing.T) {
	server := serve(t)
	directory := t.TempDir()
	put(t, filepath.Join(directory, ".dockerignore"), "!")
	var bad *ArgumentError
	if _, err := server.client.Run(t.Context(), Directory(directory)); !errors.As(err, &bad) {
		t.Error(err)
	}
	if _, err := server.client.Run(t.Context(), Path(filepath.Join(directory, "missing.py"))); !errors.Is(err, fsNotExist) {
		t.Error(err)
	}
	var nothing Source
	if _, err := server.client.Run(t.Context(), nothing); !errors.As(err, &bad) {
		t.Error(err)
	}
}

func TestServerUnreachable(t *testing.T) {
	for address, reason := range map[string]string{
		"http://127.0.0.1:1":          "connection refused",
		"http://no-such-host.invalid": "the host name cannot be resolved",
	} {
		client, err := New(address, WithRetry(Retry{}))
		if err != nil {
			t.Fatal(err)
		}
		var lost *ConnectionError
		if _, err := client.Get(t.Context(), "exe_1"); !errors.As(err, &lost) || lost.Reason != reason || lost.URL != address {
			t.Error(err)
		}
	}
}

func TestInvalidArguments(t *testing.T) {
	var bad *ArgumentError
	for _, address := range []string{"localhost", "localhost:8080", "ftp://host", "http://", "http://[::1"} {
		if _, err := New(address); !errors.As(err, &bad) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if _, err := New("http://localhost", WithToken("secret\n")); !errors.As(err, &bad) || strings.Contains(bad.Error(), "secret") {
		t.Error(err)
	}
	server := serve(t)
	for _, id := range []string{"", "../list", "exe 1", "_"} {
		if _, err := server.client.Get(t.Context(), id); !errors.As(err, &bad) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := server.client.Submit(t.Context(), Members()); !errors.As(err, &bad) {
		t.Error(err)
	}
}

func TestLargeUploadIsStreamed(t *testing.T) {
	var got int64
	server := serve(t)
	server.Config.Handler = http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		got, _ = io.Copy(io.Discard, request.Body)
		respond(202, `{"execution_id": "exe_1"}`)(writer, request)
	})
	const size = 300 << 20
	var reported int64
	source := Members(ReaderMember("main.py", zeros{}, size)).WithProgress(func(sent int64) { reported = sent })
	total, err := source.Size()
	if err != nil {
		t.Fatal(err)
	}
	before := systemMemory()
	if _, err := server.client.Submit(t.Context(), source); err != nil {
		t.Fatal(err)
	}
	if got < size || reported != total {
		t.Errorf("%d bytes received, %d reported, %d expected", got, reported, total)
	}
	if grown := systemMemory() - before; grown > 32<<20 {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
}

func TestPausesGrowWithJitter(t *testing.T) {
	pauses := Retry{Attempts: 4, First: 100 * time.Millisecond, Longest: 300 * time.Millisecond}.pauses()
	for _, most := range []time.Duration{100, 200, 300, 300} {
		pause, left := pauses()
		if most *= time.Millisecond; !left || pause > most || pause < most/2 {
			t.Error(pause, left)
		}
	}
	if _, left := pauses(); left {
		t.Error("there are more than four")
	}
	if first, second := newKey(), newKey(); first == second || len(first) < 26 {
		t.Error("keys must differ", first, second)
	}
}
