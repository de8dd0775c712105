package pyexec

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
)

func TestEvents(t *testing.T) {
	type wanted struct {
		Kind, ID, Type, Stream, Data string
		ExecutionID                  string `json:"execution_id"`
		Result, Display              json.RawMessage
	}
	type one struct {
		Name, SSE string
		Event     *wanted
	}
	for _, each := range golden[one](t, "events") {
		t.Run(each.Name, func(t *testing.T) {
			var parser sseParser
			event, err := eventFromMessage(parser.feed([]byte(each.SSE))[0])
			if err != nil {
				t.Fatal(err)
			}
			switch event := event.(type) {
			case nil:
				if each.Event != nil {
					t.Error("the event is unknown")
				}
			case Lifecycle:
				if event.ID != each.Event.ID || event.Type != each.Event.Type || event.ExecutionID != each.Event.ExecutionID {
					t.Errorf("wrong: %+v", event)
				}
			case Output:
				data, _ := base64.StdEncoding.DecodeString(each.Event.Data)
				if event.ID != each.Event.ID || event.Stream != each.Event.Stream || string(event.Data) != string(data) {
					t.Errorf("wrong: %+v", event)
				}
			case Displayed:
				encoded, err := json.Marshal(event.Display)
				if err != nil || event.ID != each.Event.ID {
					t.Errorf("wrong: %+v %v", event, err)
				}
				sameJSON(t, encoded, each.Event.Display)
			case Ended:
				if event.ID != each.Event.ID || event.Type != each.Event.Type {
					t.Errorf("wrong: %+v", event)
				}
				checkFields(t, event.Result, each.Event.Result)
			}
		})
	}
}

func TestInvalidEvents(t *testing.T) {
	for _, data := range []string{"x", "{}", `{"stream": "stdin", "data": ""}`, `{"stream": "stdout", "data": "?"}`} {
		var bad *AnswerError
		if _, err := eventFromMessage(message{event: "output", data: data}); !errors.As(err, &bad) {
			t.Errorf("%s: %v", data, err)
		}
	}
	for _, answer := range []string{"null", "[]", "x", "{}", `{"execution_id": "exe_0"}`,
		`{"execution_id": "exe_0", "status": "odd"}`,
		`{"execution_id": "exe_0", "status": "failed", "created_at": "noon"}`,
		`{"execution_id": "exe_0", "status": "failed", "usage": 3}`} {
		var bad *AnswerError
		if _, err := parseResult([]byte(answer)); !errors.As(err, &bad) {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

func TestEventStreamParser(t *testing.T) {
	type one struct {
		Sent     string
		Messages [][3]string
	}
	for _, each := range golden[one](t, "sse") {
		for piece := range len(each.Sent) { // in one chunk, and in chunks of every length
			var parser sseParser
			got := [][3]string{}
			for rest := []byte(each.Sent); len(rest) > 0; {
				size := min(len(rest), len(each.Sent)-piece)
				for _, sent := range parser.feed(rest[:size]) {
					got = append(got, [3]string{sent.event, sent.data, sent.id})
				}
				rest = rest[size:]
			}
			if !reflect.DeepEqual(got, each.Messages) {
				t.Errorf("%q is %q, want %q", each.Sent, got, each.Messages)
			}
		}
	}
}

func TestIgnoreRules(t *testing.T) {
	type one struct {
		Dockerignore  string
		Ignored, Sent []string
	}
	for _, each := range golden[one](t, "ignore") {
		rules, err := ParseIgnoreRules(each.Dockerignore)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range each.Ignored {
			if !rules.Ignores(path) {
				t.Errorf("%q does not ignore %s", each.Dockerignore, path)
			}
		}
		for _, path := range each.Sent {
			if rules.Ignores(path) {
				t.Errorf("%q ignores %s", each.Dockerignore, path)
			}
		}
	}
	for _, line := range []string{"!", "[z-a]"} {
		var bad *ArgumentError
		if _, err := ParseIgnoreRules(line); !errors.As(err, &bad) {
			t.Errorf("%q: %v", line, err)
		}
	}
	rules, err := ParseIgnoreRules("docs\nbuild\n!docs/README.md")
	if err != nil || rules.prunes("docs") || !rules.prunes("build") || !rules.prunes("doc") {
		t.Errorf("only directories that may contain an exception are searched (%v)", err)
	}
}
