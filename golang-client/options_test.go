package pyexec

import (
	"errors"
	"iter"
	"math"
	"slices"
	"strings"
	"testing"
)

const notUTF8 = "\xff"

func TestAValueThatNoRequestCanCarryIsAnErrorThatNamesTheOption(t *testing.T) {
	cases := map[string]Option{
		"WithEntrypoint":    WithEntrypoint(notUTF8),
		"WithImage":         WithImage(notUTF8),
		"WithRequirements":  WithRequirements(notUTF8),
		"WithPreCommands":   WithPreCommands("true", notUTF8),
		"WithStdin":         WithStdin(notUTF8),
		"WithEnv":           WithEnv("A", notUTF8),
		"WithEnv: 'A=B'":    WithEnv("A=B", "C"),
		"WithEnv: ''":       WithEnv("", "C"),
		"WithArgs":          WithArgs(notUTF8),
		"WithOutputFiles":   WithOutputFiles(notUTF8),
		"WithPythonVersion": WithPythonVersion(notUTF8),
		"WithCPUs":          WithCPUs(math.NaN()),
	}
	server := serve(t)
	for name, option := range cases {
		_, evalErr := server.client.Eval(t.Context(), "1", option)
		_, submitErr := server.client.Submit(t.Context(), Text("1"), option)
		for _, err := range []error{evalErr, submitErr} {
			var invalid *ArgumentError
			if !errors.As(err, &invalid) || !strings.HasPrefix(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestAnOptionThatACallDoesNotUseIsAnErrorThatNamesIt(t *testing.T) {
	server := serve(t)
	session := &Session{ID: "ses_1", client: server.client}
	first := func(events iter.Seq2[Event, error]) error {
		for _, err := range events {
			return err
		}
		return nil
	}
	calls := map[string]func(option Option) error{
		"Run": func(option Option) error {
			_, err := server.client.Run(t.Context(), Text("1"), option)
			return err
		},
		"Stream": func(option Option) error { return first(server.client.Stream(t.Context(), Text("1"), option)) },
		"Submit": func(option Option) error {
			_, err := server.client.Submit(t.Context(), Text("1"), option)
			return err
		},
		"Eval": func(option Option) error {
			_, err := server.client.Eval(t.Context(), "1", option)
			return err
		},
		"OpenSession": func(option Option) error {
			_, err := server.client.OpenSession(t.Context(), option)
			return err
		},
		"Session.Eval": func(option Option) error {
			_, err := session.Eval(t.Context(), "1", option)
			return err
		},
		"Session.Stream": func(option Option) error { return first(session.Stream(t.Context(), "1", option)) },
		"Session.Submit": func(option Option) error {
			_, err := session.Submit(t.Context(), "1", option)
			return err
		},
	}
	cases := []struct {
		name   string
		option Option
		takers []string
	}{
		{"WithPythonVersion", WithPythonVersion("3.12"), []string{"Eval"}},
		{"WithLastExpression", WithLastExpression(true), []string{"Eval"}},
		{"OnEvent", OnEvent(func(Event) {}), []string{"Run"}},
		{"WithSource", WithSource(Text("1")), []string{"OpenSession"}},
		{"OpenSession", WithMemoryMB(64), []string{"Run", "Stream", "Submit", "Eval", "OpenSession"}},
		{"OpenSession", WithStdin("1"), []string{"Run", "Stream", "Submit", "Eval", "OpenSession"}},
		{"WithIdempotencyKey", WithIdempotencyKey("1"),
			[]string{"Run", "Stream", "Submit", "Eval", "Session.Eval", "Session.Stream", "Session.Submit"}},
	}
	for _, each := range cases {
		for name, call := range calls {
			if slices.Contains(each.takers, name) {
				continue
			}
			var invalid *ArgumentError
			if err := call(each.option); !errors.As(err, &invalid) || !strings.Contains(err.Error(), each.name) {
				t.Errorf("%s in %s: %v", each.name, name, err)
			}
		}
	}
}

func TestTheCodeOfEvalIsSentAsItIs(t *testing.T) {
	server := serve(t, respond(200, `{"execution_id": "exe_1", "status": "completed"}`))
	if _, err := server.client.Eval(t.Context(), ""); err != nil {
		t.Error(err)
	}
	if body := string(server.bodies[0]); !strings.Contains(body, `"code":""`) {
		t.Error(body)
	}
	for _, files := range []map[string]string{{"a.py": notUTF8}, {notUTF8: ""}} {
		if _, err := server.client.EvalFiles(t.Context(), files); err == nil {
			t.Error(files)
		}
	}
	if _, err := server.client.Eval(t.Context(), notUTF8); err == nil {
		t.Error("invalid UTF-8 was sent")
	}
}

func TestAListHasAtLeastOneEntry(t *testing.T) {
	for _, err := range serve(t).client.List(t.Context(), Listing{Limit: -1}) {
		var invalid *ArgumentError
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), "at least 1, not -1") {
			t.Error(err)
		}
	}
}
