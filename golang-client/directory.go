package pyexec

import (
	"archive/tar"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// walk hands on everything below root that its ignore rules let pass, by name, directories before their
// contents. Owners are not told. An [ArgumentError] if that leaves nothing at all.
func walk(root string, use func(Member) error) error {
	text, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	rules, err := ParseIgnoreRules(string(text))
	if err != nil {
		return err
	}
	found := false
	err = below(root, "", rules, func(member Member) error {
		found = true
		return use(member)
	})
	if err != nil || found {
		return err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	// Without the slash at its end, as Python's paths have none.
	if root = filepath.Clean(root); len(entries) == 0 {
		return argumentError("%s: the directory is empty", root)
	}
	return argumentError("%s: everything in it is left out: .git, __pycache__, .venv, node_modules, what "+
		".dockerignore names", root)
}

func below(folder, prefix string, rules IgnoreRules, use func(Member) error) error {
	entries, err := os.ReadDir(folder) // sorted by name
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name, path := prefix+entry.Name(), filepath.Join(folder, entry.Name())
		ignored := rules.Ignores(name)
		if !ignored {
			if err := useEntry(name, path, entry, use); err != nil {
				return err
			}
		}
		if entry.IsDir() && (!ignored || !rules.prunes(name)) {
			if err := below(path, name+"/", rules, use); err != nil {
				return err
			}
		}
	}
	return nil
}

func useEntry(name, path string, entry fs.DirEntry, use func(Member) error) error {
	status, err := entry.Info()
	if err != nil {
		return err
	}
	header := tar.Header{Name: name, Mode: 0o755, ModTime: time.Unix(status.ModTime().Unix(), 0)}
	switch {
	case status.Mode().IsRegular():
		return use(diskMember(name, path, status))
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
	return use(Member{header: header})
}
