package pyexec

import (
	"errors"
	"math"
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
