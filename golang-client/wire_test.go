package pyexec

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// golden reads payloads that the server and both clients must parse in the same way.
func golden[Case any](t *testing.T, name string) []Case {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "tests", "wire", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []Case
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

type wireOptions struct {
	Entrypoint, Image   string
	Requirements, Stdin *string
	PreCommands         []string `json:"pre_commands"`
	OutputFiles         []string `json:"output_files"`
	Env                 map[string]string
	Args                []string
	Timeout, CPUs       *float64
	CPUSeconds          *float64 `json:"cpu_seconds"`
	MemoryMB            *int     `json:"memory_mb"`
	DiskMB              *int     `json:"disk_mb"`
	CPUShares           *int     `json:"cpu_shares"`
	Network             *bool
	CaptureDisplays     bool   `json:"capture_displays"`
	Inline              *bool  `json:"inline_requirements"`
	WebhookURL          string `json:"webhook_url"`
}

func (w wireOptions) options() []Option {
	options := []Option{WithEntrypoint(w.Entrypoint), WithImage(w.Image), WithPreCommands(w.PreCommands...),
		WithOutputFiles(w.OutputFiles...), WithArgs(w.Args...), WithWebhookURL(w.WebhookURL)}
	for _, name := range sortedKeys(w.Env) {
		options = append(options, WithEnv(name, w.Env[name]))
	}
	if w.CaptureDisplays {
		options = append(options, WithDisplays())
	}
	options = given(options, w.Requirements, WithRequirements)
	options = given(options, w.Stdin, WithStdin)
	options = given(options, w.CPUs, WithCPUs)
	options = given(options, w.MemoryMB, WithMemoryMB)
	options = given(options, w.DiskMB, WithDiskMB)
	options = given(options, w.CPUShares, WithCPUShares)
	options = given(options, w.Network, WithNetwork)
	options = given(options, w.Inline, WithInlineRequirements)
	options = given(options, w.CPUSeconds, func(seconds float64) Option { return WithCPUTime(duration(seconds)) })
	return given(options, w.Timeout, func(seconds float64) Option { return WithTimeout(duration(seconds)) })
}

func duration(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second))
}

func given[T any](options []Option, value *T, with func(T) Option) []Option {
	if value == nil {
		return options
	}
	return append(options, with(*value))
}

func sameJSON(t *testing.T, got, want []byte) {
	t.Helper()
	var a, b any
	if err := errors.Join(json.Unmarshal(got, &a), json.Unmarshal(want, &b)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestMetadata(t *testing.T) {
	type one struct {
		Name     string
		Options  wireOptions
		Metadata json.RawMessage
	}
	for _, each := range golden[one](t, "metadata") {
		t.Run(each.Name, func(t *testing.T) {
			req, err := uploadRequest("exec/sync", Text("x"), newSettings(each.Options.options()), "", Retry{})
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, req.upload.metadata, each.Metadata)
		})
	}
}

func TestEvalBody(t *testing.T) {
	type one struct {
		Name, Code     string
		Files          json.RawMessage
		LastExpression *bool  `json:"last_expression"`
		PythonVersion  string `json:"python_version"`
		Options        wireOptions
		Body           json.RawMessage
	}
	for _, each := range golden[one](t, "eval") {
		t.Run(each.Name, func(t *testing.T) {
			server := serve(t, respond(200, `{"execution_id": "exe_1", "status": "completed"}`))
			options := append(each.Options.options(), WithPythonVersion(each.PythonVersion))
			options = given(options, each.LastExpression, WithLastExpression)
			var err error
			if each.Files == nil {
				_, err = server.client.Eval(t.Context(), each.Code, options...)
			} else {
				var files map[string]string
				if err := json.Unmarshal(each.Files, &files); err != nil {
					t.Fatal(err)
				}
				_, err = server.client.EvalFiles(t.Context(), files, options...)
			}
			if err != nil {
				t.Fatal(err)
			}
			// Compare files by name, because a map has no order.
			var got, want map[string]any
			if err := errors.Join(json.Unmarshal(server.bodies[0], &got), json.Unmarshal(each.Body, &want)); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(byName(got), byName(want)) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func byName(body map[string]any) map[string]any {
	if files, ok := body["files"].([]any); ok {
		named := map[string]any{}
		for _, file := range files {
			file := file.(map[string]any)
			named[file["name"].(string)] = file["content"]
		}
		body["files"] = named
	}
	return body
}

func TestResults(t *testing.T) {
	type one struct {
		Name                  string
		Ended, OK             bool
		Result                json.RawMessage
		Files                 [][2]any
		FilesTruncated        bool        `json:"files_truncated"`
		FilesSkipped          [][3]string `json:"files_skipped"`
		FilesSkippedTruncated bool        `json:"files_skipped_truncated"`
	}
	for _, each := range slices.Concat(golden[one](t, "results"), golden[one](t, "results_with_files"),
		golden[one](t, "results_of_newer_servers")) {
		t.Run(each.Name, func(t *testing.T) {
			result, err := parseResult(each.Result)
			if err != nil {
				t.Fatal(err)
			}
			if result.Ended() != each.Ended || result.OK() != each.OK || result.FilesTruncated != each.FilesTruncated {
				t.Errorf("wrong: %+v", result)
			}
			var files [][2]any
			for _, file := range result.Files {
				files = append(files, [2]any{file.Path, float64(file.Size)})
			}
			if len(files) != len(each.Files) || (len(files) > 0 && !reflect.DeepEqual(files, each.Files)) {
				t.Errorf("files: %v, want %v", files, each.Files)
			}
			var skipped [][3]string
			for _, file := range result.FilesSkipped {
				skipped = append(skipped, [3]string{file.Path, file.Pattern, file.Reason})
			}
			if !reflect.DeepEqual(skipped, each.FilesSkipped) ||
				result.FilesSkippedTruncated != each.FilesSkippedTruncated {
				t.Errorf("skipped: %v, want %v", skipped, each.FilesSkipped)
			}
			checkFields(t, result, each.Result)
		})
	}
}

// checkFields compares every field of the JSON object with the field of the same name.
func checkFields(t *testing.T, result *Result, wire []byte) {
	t.Helper()
	encoded, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	if err := errors.Join(json.Unmarshal(encoded, &got), json.Unmarshal(wire, &want)); err != nil {
		t.Fatal(err)
	}
	for name, value := range want {
		if moment, ok := value.(string); ok && len(moment) == 27 && moment[26] == 'Z' {
			at, err := time.Parse(time.RFC3339Nano, moment)
			if err != nil {
				t.Fatal(err)
			}
			value = at.Format(time.RFC3339Nano)
		}
		if name == "of_a_newer_server" {
			continue
		}
		if timings, ok := value.(map[string]any); ok {
			delete(timings, "newer")
		}
		if !reflect.DeepEqual(got[name], value) {
			t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
	sameJSON(t, result.Raw, wire)
}

func TestErrors(t *testing.T) {
	type one struct {
		Name, Body, Kind, Code, Field, Text string
		Status                              int
		Headers                             map[string]string
		RetryAfter                          *int `json:"retry_after"`
	}
	named := map[string]error{"error": errOther}
	for _, kind := range []error{ErrInvalidRequest, ErrTooLarge, ErrUnauthorized, ErrNotFound, ErrConflict,
		ErrSessionClosed, ErrQueueFull, ErrUnavailable, ErrServer} {
		named[kind.Error()] = kind
	}
	for _, each := range golden[one](t, "errors") {
		t.Run(each.Name, func(t *testing.T) {
			header := http.Header{}
			for name, value := range each.Headers {
				header.Set(name, value)
			}
			err := errorFromResponse(each.Status, header, []byte(each.Body))
			if !errors.Is(err, named[each.Kind]) || err.Status != each.Status || err.Code != each.Code ||
				err.Field != each.Field || err.Error() != each.Text || string(err.Body) != each.Body {
				t.Errorf("wrong: %#v", err)
			}
			for name, kind := range named {
				expected := name == each.Kind || (name == "invalid_request" && each.Kind == "too_large")
				if errors.Is(err, kind) != expected {
					t.Errorf("%s: %v", name, !expected)
				}
			}
			if (err.RetryAfter == nil) != (each.RetryAfter == nil) ||
				(err.RetryAfter != nil && err.RetryAfter.Seconds() != float64(*each.RetryAfter)) {
				t.Errorf("RetryAfter is %v", err.RetryAfter)
			}
		})
	}
}

func TestWireArguments(t *testing.T) {
	for _, each := range golden[struct{ Name, Kind, Value, Escaped, Error string }](t, "arguments") {
		var sent string
		var err error
		switch each.Kind {
		case "base_url":
			_, err = New(each.Value)
		case "execution_id":
			_, err = executionRequest("GET", each.Value, "", Retry{})
		case "session_id":
			_, err = sessionRequest("GET", each.Value, "", Retry{})
		default:
			sent, err = filePath(each.Value)
		}
		if sent != each.Escaped || (err == nil) != (each.Error == "") || err != nil && err.Error() != each.Error {
			t.Errorf("%s: %q %v", each.Name, sent, err)
		}
	}
}

func TestNumberOfAnyLengthDoesNotHideAResult(t *testing.T) {
	for _, digits := range []int{10, 25, 5000} {
		number := strings.Repeat("1", digits)
		body := `{"execution_id": "exe_1", "status": "completed", "usage": {"peak_memory_bytes": ` + number + `},
			"error_line": ` + number + `, "exit_code": 1, "stdout": "a"}`
		result, err := parseResult([]byte(body))
		if err != nil || result.Stdout != "a" || *result.ExitCode != 1 {
			t.Errorf("%d digits: %+v %v", digits, result, err)
		}
	}
	if _, err := parseResult([]byte(`{"execution_id": "exe_1", "status": "completed", "error_line": "1"}`)); err == nil {
		t.Error("text in the place of a number is accepted")
	}
}

func TestWireSingleFiles(t *testing.T) {
	for _, each := range golden[struct {
		Name, File string
		Entrypoint *string
	}](t, "single_files") {
		path := filepath.Join(t.TempDir(), each.File)
		if err := os.WriteFile(path, []byte("print()"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, option := range []string{"", "x"} {
			made, err := uploadRequest("exec/async", Path(path), newSettings([]Option{WithEntrypoint(option)}), "", Retry{})
			if err != nil {
				t.Fatal(err)
			}
			var sent struct{ Entrypoint *string }
			if err := json.Unmarshal(made.upload.metadata, &sent); err != nil {
				t.Fatal(err)
			}
			want := each.Entrypoint
			if option != "" {
				want = &option
			}
			if !reflect.DeepEqual(sent.Entrypoint, want) {
				t.Errorf("%s: %s", each.Name, made.upload.metadata)
			}
		}
	}
}

func TestWireSources(t *testing.T) {
	for _, each := range golden[struct{ Name, File, Text, Sent string }](t, "sources") {
		got := entries(t, Files(map[string]string{each.File: each.Text}))
		if got[0].content != each.Sent {
			t.Errorf("%s: %q", each.Name, got[0].content)
		}
	}
}
