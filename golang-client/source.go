package pyexec

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

const pieceBytes = 256 << 10

// Source is what to run, as the uncompressed tar that the server takes. Make one with [Text], [Files],
// [Members], [Path], [Directory], [TarFile] or [Reader]. It is read as it is sent, and never held as a whole.
type Source struct {
	openTar    func() (io.ReadCloser, error)
	size       func() (int64, error)
	replayable bool // it can be produced again, byte for byte
	progress   func(sent int64)
}

// Text is Python source text; it becomes main.py.
func Text(code string) Source {
	return Files(map[string]string{"main.py": code})
}

// Files are texts by their paths in the archive, in the order of their names.
func Files(files map[string]string) Source {
	members := make([]Member, 0, len(files))
	for _, name := range sortedKeys(files) {
		members = append(members, TextMember(name, files[name]))
	}
	return Members(members...)
}

// Members are files in this order, each from memory, from disk, or from anything that can be read at any place.
func Members(members ...Member) Source {
	return fromMembers(func(use func(Member) error) error {
		if len(members) == 0 {
			return argumentError("there are no files to run")
		}
		for _, member := range members {
			if err := use(member); err != nil {
				return err
			}
		}
		return nil
	})
}

// Path is the file, directory or tar at this path: a name that ends like an archive's is sent as it is.
func Path(path string) Source {
	status, err := os.Stat(path)
	switch {
	case err != nil:
		return failing(err)
	case status.IsDir():
		return Directory(path)
	case IsTarName(path):
		return TarFile(path)
	}
	return fromMembers(func(use func(Member) error) error {
		member, err := FileMember(filepath.Base(path), path)
		if err != nil {
			return err
		}
		return use(member)
	})
}

// Directory is everything below a directory but .git, __pycache__, .venv, node_modules and what its
// .dockerignore names. Symbolic links stay links; sockets, pipes and devices are left out.
func Directory(path string) Source {
	// Not replayable in the strict sense if somebody edits meanwhile; the server would then answer 409.
	return fromMembers(func(use func(Member) error) error { return walk(path, use) })
}

// TarFile is an archive on disk, sent as it is.
func TarFile(path string) Source {
	return Source{
		openTar: func() (io.ReadCloser, error) { return os.Open(path) },
		size: func() (int64, error) {
			status, err := os.Stat(path)
			if err != nil {
				return 0, err
			}
			return status.Size(), nil
		},
		replayable: true,
	}
}

// Reader is an uncompressed tar from a stream. It can be sent once: nothing that carries it is retried.
func Reader(tar io.Reader) Source {
	return Source{openTar: func() (io.ReadCloser, error) { return io.NopCloser(tar), nil }}
}

// WithProgress has call told how many bytes of the archive have been sent so far.
func (s Source) WithProgress(call func(sent int64)) Source {
	s.progress = call
	return s
}

// Size is how many bytes the archive has, and an error for a stream, or for what cannot be read.
func (s Source) Size() (int64, error) {
	if s.size == nil {
		return 0, errors.ErrUnsupported
	}
	return s.size()
}

func (s Source) open() (io.ReadCloser, error) {
	if s.openTar == nil {
		return nil, argumentError("there is nothing to run: the source is empty")
	}
	tar, err := s.openTar()
	if err != nil || s.progress == nil {
		return tar, err
	}
	return &counted{ReadCloser: tar, tell: s.progress}, nil
}

// IsTarName says whether a path's name says that it is an archive already. Compressed ones are sent as they
// are: the server takes none, and says so better than we could.
func IsTarName(path string) bool {
	name := strings.ToLower(path)
	for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// each hands on the members of a source, one by one.
type each func(use func(Member) error) error

func fromMembers(members each) Source {
	return Source{
		openTar:    func() (io.ReadCloser, error) { return writing(members), nil },
		size:       func() (int64, error) { return sizeOf(members) },
		replayable: true,
	}
}

func failing(err error) Source {
	return Source{
		openTar: func() (io.ReadCloser, error) { return nil, err },
		size:    func() (int64, error) { return 0, err },
	}
}

// writing makes the archive while it is read. Closing what it gives ends that.
func writing(members each) io.ReadCloser {
	reader, writer := io.Pipe()
	var over sync.WaitGroup
	over.Add(1)
	go func() {
		defer over.Done()
		buffer := bufio.NewWriterSize(writer, pieceBytes)
		err := writeTar(buffer, members)
		if err == nil {
			err = buffer.Flush()
		}
		writer.CloseWithError(err)
	}()
	return &written{reader, &over}
}

type written struct {
	*io.PipeReader
	over *sync.WaitGroup
}

// Close returns when nothing is read any more from what was to be sent.
func (w *written) Close() error {
	err := w.PipeReader.Close()
	w.over.Wait()
	return err
}

type counted struct {
	io.ReadCloser
	tell func(int64)
	sent int64
}

func (c *counted) Read(buffer []byte) (int, error) {
	count, err := c.ReadCloser.Read(buffer)
	c.sent += int64(count)
	c.tell(c.sent)
	return count, err
}
