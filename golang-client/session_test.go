package pyexec

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	openSession   = `{"id": "ses_1", "status": "open", "created_at": "2026-01-01T00:00:00Z", "cells": {"waiting": 2, "running": "exe_1"}, "new": 1}`
	closedSession = `{"id": "ses_1", "status": "closed", "close_reason": "idle", "cells": {"waiting": 0, "running": null}}`
	cellResult    = `{"execution_id": "exe_1", "session_id": "ses_1", "status": "completed", "exit_code": 0, "result": "42", "interpreter_restarted": true}`
	isClosed      = `{"error": "the session is closed (idle)", "code": "session_closed"}`
)

func opened(t *testing.T, behaviours ...http.HandlerFunc) (*flawedServer, *Session) {
	t.Helper()
	server := serve(t, append([]http.HandlerFunc{respond(200, openSession)}, behaviours...)...)
	session, err := server.client.GetSession(t.Context(), "ses_1")
	if err != nil {
		t.Fatal(err)
	}
	return server, session
}

func TestOpenSessionSendsTheOptions(t *testing.T) {
	server := serve(t, respond(201, openSession), respond(201, openSession))
	session, err := server.client.OpenSession(t.Context(), WithRequirements("numpy"), WithTimeout(5*time.Second),
		WithIdleTimeout(time.Minute), WithLifetime(time.Hour), WithEnv("A", "1"))
	if err != nil || session.ID != "ses_1" || !session.Info().IsOpen() || session.Info().Cells != (Cells{2, "exe_1"}) {
		t.Fatal(session, err)
	}
	var sent map[string]any
	if err := json.Unmarshal(server.bodies[0], &sent); err != nil {
		t.Fatal(err)
	}
	encoded, _ := json.Marshal(sent)
	expected := `{"config":{"timeout_seconds":5},"env_vars":["A=1"],"idle_timeout_seconds":60,` +
		`"lifetime_seconds":3600,"requirements_txt":"numpy"}`
	if string(encoded) != expected {
		t.Error(string(encoded))
	}
	if _, err := server.client.OpenSession(t.Context(), WithSource(Text("x = 1"))); err != nil {
		t.Error(err)
	}
	if !bytes.Contains(server.bodies[1], []byte("main.py")) || !bytes.Contains(server.bodies[1], []byte(`name="metadata"`)) {
		t.Errorf("%.300s", server.bodies[1])
	}
	if paths := server.paths(); paths[0] != "POST /api/v1/sessions" {
		t.Error(paths)
	}
}

func TestCellsOfASession(t *testing.T) {
	server, session := opened(t, respond(200, cellResult), stream(submitted, finished), respond(202, `{"execution_id": "exe_2"}`))
	result, err := session.Eval(t.Context(), "6 * 7", WithTimeout(time.Second), WithIdempotencyKey("k"))
	if err != nil || *result.Value != "42" || result.SessionID != "ses_1" || !result.InterpreterRestarted {
		t.Error(result, err)
	}
	if body := string(server.bodies[1]); body != `{"code":"6 * 7","timeout_seconds":1}` {
		t.Error(body)
	}
	var last Event
	for event, err := range session.Stream(t.Context(), "x") {
		if err != nil {
			t.Fatal(err)
		}
		last = event
	}
	if _, ended := last.(Ended); !ended {
		t.Error(last)
	}
	if id, err := session.Submit(t.Context(), "x"); err != nil || id != "exe_2" {
		t.Error(id, err)
	}
	keys := server.headers("Idempotency-Key")
	if keys[1] != "k" || keys[2] != "" || keys[3] == "" {
		t.Error(keys)
	}
	expected := []string{"/eval", "/eval", "/eval/async"}
	for index, path := range server.paths()[1:] {
		if path != "POST /api/v1/sessions/ses_1"+expected[index] {
			t.Error(path)
		}
	}
}

func TestTheStateOfASession(t *testing.T) {
	_, session := opened(t, respond(200, `{"interrupted": true}`), respond(200, openSession), respond(200, closedSession),
		respond(200, closedSession), respond(410, isClosed), respond(410, isClosed), respond(200, `{"sessions": [`+openSession+`]}`))
	if hit, err := session.Interrupt(t.Context()); err != nil || !hit {
		t.Error(hit, err)
	}
	if info, err := session.Restart(t.Context()); err != nil || !info.IsOpen() {
		t.Error(info, err)
	}
	if info, err := session.Refresh(t.Context()); err != nil || info.CloseReason != "idle" {
		t.Error(info, err)
	}
	for range 2 { // closing twice is no error
		if err := session.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if _, err := session.Eval(t.Context(), "1"); !errors.Is(err, ErrSessionClosed) {
		t.Error(err)
	}
	infos, err := session.client.Sessions(t.Context())
	if err != nil || len(infos) != 1 || !bytes.Contains(infos[0].Raw, []byte(`"new"`)) {
		t.Error(infos, err)
	}
}

func TestFilesOfASession(t *testing.T) {
	server, session := opened(t, respond(204, ""), respond(200, "content"), respond(204, ""),
		respond(200, `{"files": [{"path": "a b", "size": 7}], "truncated": true}`), respond(200, "tar"))
	if err := session.Upload(t.Context(), "a b/ä?.txt", strings.NewReader(strings.Repeat("x", 1<<20))); err != nil {
		t.Error(err)
	}
	if len(server.bodies[1]) != 1<<20 {
		t.Error(len(server.bodies[1]))
	}
	read := func(content io.ReadCloser, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		defer content.Close()
		all, _ := io.ReadAll(content)
		return string(all)
	}
	if text := read(session.Download(t.Context(), "a b")); text != "content" {
		t.Error(text)
	}
	if err := session.Delete(t.Context(), "a b"); err != nil {
		t.Error(err)
	}
	list, err := session.List(t.Context(), "*.csv")
	if err != nil || !list.Truncated || list.Files[0] != (OutputFile{"a b", 7}) {
		t.Error(list, err)
	}
	if text := read(session.DownloadTar(t.Context(), "")); text != "tar" {
		t.Error(text)
	}
	expected := []string{
		"PUT /api/v1/sessions/ses_1/files/a%20b/%C3%A4%3F.txt", "GET /api/v1/sessions/ses_1/files/a%20b",
		"DELETE /api/v1/sessions/ses_1/files/a%20b", "GET /api/v1/sessions/ses_1/files?glob=%2A.csv",
		"GET /api/v1/sessions/ses_1/files",
	}
	for index, path := range server.paths()[1:] {
		if path != expected[index] {
			t.Error(path)
		}
	}
	if accepted := server.headers("Accept"); accepted[5] != "application/x-tar" {
		t.Error(accepted)
	}
}

func TestAFileThatCannotBeReadIsTheCallersError(t *testing.T) {
	broken := errors.New("broken")
	_, session := opened(t, respond(204, ""))
	content := io.MultiReader(strings.NewReader("x"), iotestReader{broken})
	if err := session.Upload(t.Context(), "f", content); !errors.Is(err, broken) {
		t.Error(err)
	}
	var invalid *ArgumentError
	if err := session.Upload(t.Context(), "/", strings.NewReader("")); !errors.As(err, &invalid) {
		t.Error(err)
	}
}

type iotestReader struct{ err error }

func (r iotestReader) Read([]byte) (int, error) { return 0, r.err }

func TestInvalidSessions(t *testing.T) {
	for _, body := range []string{"[]", "{}", `{"id": "ses_1"}`, `{"id": 1, "status": "open"}`} {
		server := serve(t, respond(200, body))
		var invalid *AnswerError
		if _, err := server.client.GetSession(t.Context(), "ses_1"); !errors.As(err, &invalid) {
			t.Error(body, err)
		}
	}
	var invalid *ArgumentError
	if _, err := serve(t).client.GetSession(t.Context(), "../x"); !errors.As(err, &invalid) {
		t.Error(err)
	}
}

func TestInvalidFilePaths(t *testing.T) {
	server := serve(t)
	session := &Session{client: server.client}
	session.ID = "ses_1"
	for _, path := range []string{"", "/", "..", "../../ses_2", "a/../b", "./a"} {
		var invalid *ArgumentError
		if err := session.Delete(t.Context(), path); !errors.As(err, &invalid) {
			t.Error(path, err)
		}
		if _, err := server.client.File(t.Context(), "exe_1", path); !errors.As(err, &invalid) {
			t.Error(path, err)
		}
	}
}
