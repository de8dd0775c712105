package pyexec

import (
	"archive/tar"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// walkDirectory calls visit with every file below root that is not ignored, sorted by name; directories come before
// their contents. The scripts at the root come first: the server looks for inline metadata at the beginning of an archive
// only. File owners are not included. It fails with an [ArgumentError] if nothing remains.
func walkDirectory(root string, visit func(Member) error) error {
	text, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	rules, err := ParseIgnoreRules(string(text))
	if err != nil {
		return err
	}
	found := false
	err = walkBelow(root, "", rules, func(member Member) error {
		found = true
		return visit(member)
	})
	if err != nil || found {
		return err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	// Remove a trailing slash: the Python client prints the path without one.
	if root = filepath.Clean(root); len(entries) == 0 {
		return argumentError("%s: the directory is empty", root)
	}
	return argumentError("%s: every file is ignored: .git, __pycache__, .venv, node_modules and .dockerignore patterns "+
		"are not sent", root)
}

func walkBelow(folder, prefix string, rules IgnoreRules, visit func(Member) error) error {
	entries, err := os.ReadDir(folder) // sorted by name
	if err != nil {
		return err
	}
	if prefix == "" {
		slices.SortStableFunc(entries, func(a, b fs.DirEntry) int { return scriptRank(a) - scriptRank(b) })
	}
	for _, entry := range entries {
		name, path := prefix+entry.Name(), filepath.Join(folder, entry.Name())
		ignored := rules.Ignores(name)
		if !ignored {
			if err := visitEntry(name, path, entry, visit); err != nil {
				return err
			}
		}
		if entry.IsDir() && (!ignored || !rules.prunes(name)) {
			if err := walkBelow(path, name+"/", rules, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func scriptRank(entry fs.DirEntry) int {
	if strings.HasSuffix(entry.Name(), ".py") {
		return 0
	}
	return 1
}

func visitEntry(name, path string, entry fs.DirEntry, visit func(Member) error) error {
	status, err := entry.Info()
	if err != nil {
		return err
	}
	header := tar.Header{Name: name, Mode: 0o755, ModTime: time.Unix(status.ModTime().Unix(), 0)}
	switch {
	case status.Mode().IsRegular():
		return visit(diskMember(name, path, status))
	case status.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
	case status.Mode()&fs.ModeSymlink != 0:
		header.Typeflag = tar.TypeSymlink
		if header.Linkname, err = os.Readlink(path); err != nil {
			return err
		}
	default:
		return nil
	}
	return visit(Member{header: header})
}
