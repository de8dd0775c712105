package pyexec_test

import (
	"bytes"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestPackageNeedsOnlyTheStandardLibrary(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
	output, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(output)); len(got) != 1 || got[0] != "github.com/python-executor/golang-client" {
		t.Error(got)
	}
}

func TestEveryFileIsFormatted(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		formatted, err := format.Source(source)
		if err == nil && !bytes.Equal(source, formatted) {
			t.Errorf("%s is not formatted: run gofmt -w %s", path, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
