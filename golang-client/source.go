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

const chunkBytes = 256 << 10

// Source is the code to run. It is sent as an uncompressed tar, which is built while it is sent and never held in
// memory as a whole. Create one with [Text], [Files], [Members], [Path], [Directory], [TarFile] or [Reader].
type Source struct {
	openTar    func() (io.ReadCloser, error)
	size       func() (int64, error)
	replayable bool // the archive can be built again with the same bytes
	progress   func(sent int64)
	entrypoint string // the file to run if the server could not detect it and no option names one
}

// Text creates a source from Python source text, as main.py.
func Text(code string) Source {
	return Files(map[string]string{"main.py": code})
}

// Files creates a source from texts by archive path.
func Files(files map[string]string) Source {
	members := make([]Member, 0, len(files))
	for _, name := range sortedKeys(files) {
		members = append(members, TextMember(name, files[name]))
	}
	return Members(members...)
}

// Members creates a source from files in memory, on disk, or behind an [io.ReaderAt], in this order.
func Members(members ...Member) Source {
	return fromMembers(func(visit func(Member) error) error {
		if len(members) == 0 {
			return argumentError("nothing to run: no files given")
		}
		for _, member := range members {
			if err := visit(member); err != nil {
				return err
			}
		}
		return nil
	})
}

// Path creates a source from a file, a directory or a tar. A file whose name ends like that of a tar is sent
// unchanged. Any other file is run if no option names another entrypoint: its name needs no suffix.
func Path(path string) Source {
	status, err := os.Stat(path)
	switch {
	case err != nil:
		return failedSource(err)
	case status.IsDir():
		return Directory(path)
	case IsTarName(path):
		return TarFile(path)
	}
	name := filepath.Base(path)
	source := fromMembers(func(visit func(Member) error) error {
		member, err := FileMember(name, path)
		if err != nil {
			return err
		}
		return visit(member)
	})
	// A script that is sent alone needs no suffix.
	if !strings.HasSuffix(name, ".py") || strings.HasPrefix(name, "._") {
		source.entrypoint = name
	}
	return source
}

// Directory creates a source from the files of a directory, except for those that [IgnoreRules] exclude. Symbolic
// links are kept as links. Sockets, pipes and devices are skipped.
func Directory(path string) Source {
	// If a file changes between two attempts, the server answers 409 to the second one.
	return fromMembers(func(visit func(Member) error) error { return walkDirectory(path, visit) })
}

// TarFile creates a source from an archive on disk, which is sent unchanged.
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

// Reader creates a source from an uncompressed tar stream. It can be read only once, so its requests are not
// retried.
func Reader(tar io.Reader) Source {
	return Source{openTar: func() (io.ReadCloser, error) { return io.NopCloser(tar), nil }}
}

// WithProgress returns a copy that calls onProgress with the number of bytes of the archive sent so far.
func (s Source) WithProgress(onProgress func(sent int64)) Source {
	s.progress = onProgress
	return s
}

// Size returns the size of the archive in bytes. It fails for a stream, and if a file is unreadable.
func (s Source) Size() (int64, error) {
	if s.size == nil {
		return 0, errors.ErrUnsupported
	}
	return s.size()
}

func (s Source) open() (io.ReadCloser, error) {
	if s.openTar == nil {
		return nil, argumentError("nothing to run: the source is empty")
	}
	tar, err := s.openTar()
	if err != nil || s.progress == nil {
		return tar, err
	}
	return &countingReader{ReadCloser: tar, onProgress: s.progress}, nil
}

// IsTarName reports whether a file name ends like that of a tar archive, compressed or not. Such files are sent
// unchanged. The server rejects compressed archives with a clear message.
func IsTarName(path string) bool {
	name := strings.ToLower(path)
	for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// memberWalk calls visit with each member of a source.
type memberWalk func(visit func(Member) error) error

func fromMembers(walk memberWalk) Source {
	return Source{
		openTar:    func() (io.ReadCloser, error) { return buildTar(walk), nil },
		size:       func() (int64, error) { return tarSize(walk) },
		replayable: true,
	}
}

func failedSource(err error) Source {
	return Source{
		openTar: func() (io.ReadCloser, error) { return nil, err },
		size:    func() (int64, error) { return 0, err },
	}
}

// buildTar returns a reader of the archive, which a goroutine builds while it is read.
func buildTar(walk memberWalk) io.ReadCloser {
	reader, writer := io.Pipe()
	var done sync.WaitGroup
	done.Add(1)
	go func() {
		defer done.Done()
		buffer := bufio.NewWriterSize(writer, chunkBytes)
		err := writeTar(buffer, walk)
		if err == nil {
			err = buffer.Flush()
		}
		writer.CloseWithError(err)
	}()
	return &tarReader{reader, &done}
}

type tarReader struct {
	*io.PipeReader
	done *sync.WaitGroup
}

// Close stops the goroutine and waits until it no longer reads the source.
func (r *tarReader) Close() error {
	err := r.PipeReader.Close()
	r.done.Wait()
	return err
}

type countingReader struct {
	io.ReadCloser
	onProgress func(int64)
	sent       int64
}

func (c *countingReader) Read(buffer []byte) (int, error) {
	count, err := c.ReadCloser.Read(buffer)
	c.sent += int64(count)
	c.onProgress(c.sent)
	return count, err
}
