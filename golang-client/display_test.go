package pyexec

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestDisplays(t *testing.T) {
	cases := []struct{ data, mimeType, suffix, content string }{
		{`{"text/plain": "t", "text/html": "<b>", "image/png": "iVBORw=="}`, "image/png", ".png", "\x89PNG"},
		{`{"text/plain": "t", "text/html": "<b>ü"}`, "text/html", ".html", "<b>ü"},
		{`{"image/svg+xml": "<svg/>"}`, "image/svg+xml", ".svg", "<svg/>"},
		{`{"application/json": "text"}`, "application/json", ".json", `"text"`},
		{`{"text/plain": "t", "a/b+json": {"x": 1}}`, "a/b+json", ".json", `{"x": 1}`},
		{`{"text/plain": "t", "x/b": "u", "x/a": "v"}`, "x/a", ".txt", "v"},
		{`{"audio/wav": "iVBORw=="}`, "audio/wav", ".bin", "\x89PNG"},
		{`{"text/plain": "t"}`, "text/plain", ".txt", "t"},
	}
	for _, each := range cases {
		var display Display
		if err := json.Unmarshal([]byte(each.data), &display.Data); err != nil {
			t.Fatal(err)
		}
		content, err := display.Content("")
		if err != nil || display.MIMEType() != each.mimeType || display.Suffix() != each.suffix ||
			string(content) != each.content {
			t.Errorf("%s: %q %s %s %v", each.data, content, display.MIMEType(), display.Suffix(), err)
		}
	}
}

func TestSaveSelectsTheFormByTheSuffix(t *testing.T) {
	display := Display{Data: map[string]json.RawMessage{
		"text/plain": []byte(`"t"`), "image/jpeg": []byte(`"iVBORw=="`), "text/html": []byte(`"<b>"`),
	}}
	for name, content := range map[string]string{"a.txt": "t", "a.JPEG": "\x89PNG", "a.html": "<b>", "a": "\x89PNG"} {
		path := filepath.Join(t.TempDir(), name)
		if err := display.Save(path); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	display.Data["image/jpeg"] = []byte(`"%%%"`)
	var bad *AnswerError
	if _, err := display.Content(""); !errors.As(err, &bad) {
		t.Errorf("invalid base64: %v", err)
	}
	if _, err := display.Content("image/png"); err == nil {
		t.Error("a form that the display does not have is returned")
	}
}
