package pyexec

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

var fsNotExist = fs.ErrNotExist

type zeros struct{}

func (zeros) ReadAt(buffer []byte, _ int64) (int, error) {
	clear(buffer)
	return len(buffer), nil
}

// systemMemory returns how much memory this process has obtained from the system.
func systemMemory() uint64 {
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	return now.Sys
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func whole(t *testing.T, source Source) []byte {
	t.Helper()
	archive, err := source.open()
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	content, err := io.ReadAll(archive)
	if err != nil {
		t.Fatal(err)
	}
	if size, err := source.Size(); source.size != nil && (err != nil || size != int64(len(content))) {
		t.Errorf("Size returned %d (%v), the archive has %d bytes", size, err, len(content))
	}
	return content
}

type entry struct {
	name, content string
	mode          int64
	link          string
	at            time.Time
}

func entries(t *testing.T, source Source) []entry {
	t.Helper()
	archive := tar.NewReader(bytes.NewReader(whole(t, source)))
	var got []entry
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Uname != "" {
			t.Errorf("%s contains its owner", header.Name)
		}
		got = append(got, entry{header.Name, string(content), header.Mode, header.Linkname, header.ModTime})
	}
}

func names(entries []entry) []string {
	var names []string
	for _, entry := range entries {
		names = append(names, entry.name)
	}
	return names
}

func TestFilesAreSortedByName(t *testing.T) {
	long := strings.Repeat("d/", 200) + "grüße.py"
	got := entries(t, Files(map[string]string{"b.py": "2", "a.py": "1", long: strings.Repeat("x", 1000)}))
	want := []entry{{"a.py", "1", 0o644, "", fixedTime}, {"b.py", "2", 0o644, "", fixedTime},
		{long, strings.Repeat("x", 1000), 0o644, "", fixedTime}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if got := entries(t, Text("print(1)")); len(got) != 1 || got[0].name != "main.py" {
		t.Error(got)
	}
	if !bytes.Equal(whole(t, Text("print(1)")), whole(t, Text("print(1)"))) {
		t.Error("equal sources are not equal archives")
	}
}

func TestDirectoryIsSortedAndKeepsModesAndLinks(t *testing.T) {
	root := t.TempDir()
	put(t, filepath.Join(root, "b", "tool"), "#!/bin/sh")
	put(t, filepath.Join(root, "a.py"), "a")
	failed := []error{
		os.Chmod(filepath.Join(root, "b", "tool"), 0o700),
		os.Mkdir(filepath.Join(root, "empty"), 0o700),
		os.Symlink("a.py", filepath.Join(root, "link")),
		syscall.Mkfifo(filepath.Join(root, "pipe"), 0o600),
	}
	for _, err := range failed {
		if err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("unix", filepath.Join(root, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	got := entries(t, Directory(root))
	if want := []string{"a.py", "b/", "b/tool", "empty/", "link"}; !reflect.DeepEqual(names(got), want) {
		t.Fatal(names(got))
	}
	if got[0].mode != 0o644 || got[1].mode != 0o755 || got[2].mode != 0o755 || got[4].link != "a.py" {
		t.Error(got)
	}
}

func TestDirectoryWithoutFilesIsAnError(t *testing.T) {
	root := t.TempDir()
	for _, reason := range []string{"the directory is empty", "every file is ignored"} {
		var invalid *ArgumentError
		_, err := Path(root).Size()
		if !errors.As(err, &invalid) || !strings.Contains(invalid.Message, reason) {
			t.Errorf("%v, want %q", err, reason)
		}
		put(t, filepath.Join(root, ".git", "HEAD"), "")
	}
}

func TestIgnoreRulesApplyAtAnyDepth(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"main.py", "sub/x.py", "sub/node_modules/a.js", ".git/HEAD", "__pycache__/x.pyc",
		"secret/key", "x.log", "docs/README.md", "docs/other"} {
		put(t, filepath.Join(root, name), name)
	}
	put(t, filepath.Join(root, ".dockerignore"), "secret\n*.log\ndocs\n!docs/README.md\n")
	want := []string{"main.py", ".dockerignore", "docs/README.md", "sub/", "sub/x.py"}
	if got := names(entries(t, Path(root))); !reflect.DeepEqual(got, want) {
		t.Error(got)
	}
}

func TestPathsOfEachKind(t *testing.T) {
	root := t.TempDir()
	put(t, filepath.Join(root, "tool.py"), "print(1)")
	if got := entries(t, Path(filepath.Join(root, "tool.py"))); len(got) != 1 || got[0].name != "tool.py" {
		t.Error(got)
	}
	content := whole(t, Text("from a tar"))
	put(t, filepath.Join(root, "Code.TAR"), string(content))
	if !bytes.Equal(whole(t, Path(filepath.Join(root, "Code.TAR"))), content) {
		t.Error("a tar is not sent unchanged")
	}
	if !bytes.Equal(whole(t, Reader(bytes.NewReader(content))), content) {
		t.Error("a stream is not sent unchanged")
	}
	if IsTarName("tar") || IsTarName("a.tar.py") || !IsTarName("a.tgz") {
		t.Error("names of archives")
	}
}

func TestFileThatChangesWhileItIsSent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	put(t, path, "before")
	member, err := FileMember("log", path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, path, "before and after")
	got := entries(t, Members(member, TextMember("next", "x")))
	if got[0].content != "before" || got[1].content != "x" {
		t.Error(got)
	}
	put(t, path, "")
	archive, err := Members(member).open()
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	if _, err := io.ReadAll(archive); err == nil || err.Error() != "log became shorter while it was being sent" {
		t.Error(err)
	}
}

func TestNameThatIsNotUTF8IsSentUnchanged(t *testing.T) {
	root := t.TempDir()
	put(t, filepath.Join(root, "\xff.py"), "1")
	if got := names(entries(t, Directory(root))); !reflect.DeepEqual(got, []string{"\xff.py"}) {
		t.Errorf("%q", got)
	}
}

func TestClosingAnArchiveStopsBuildingIt(t *testing.T) {
	archive, err := Members(ReaderMember("endless", zeros{}, 1<<50)).open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, archive, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil { // waits until the source is no longer read
		t.Error(err)
	}
}
