package pyexec

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// An archive ends with two empty blocks.
const endBytes = 1024

// Text has no time of its own. A fixed one makes equal sources equal archives, which an idempotency key needs;
// 1980 because zip files, which programs may make of what they got, know no earlier one.
var fixedTime = time.Unix(315_532_800, 0)

// Member is one entry of an archive. Make one with [TextMember], [FileMember] or [ReaderMember].
type Member struct {
	header  tar.Header
	content io.ReaderAt // nil: nothing
	path    string      // instead of content: the file to read
}

// TextMember is a file with this text.
func TextMember(name, content string) Member {
	return ReaderMember(name, strings.NewReader(content), int64(len(content)))
}

// ReaderMember is a file with what content holds, size bytes of it.
func ReaderMember(name string, content io.ReaderAt, size int64) Member {
	header := tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: fixedTime, Typeflag: tar.TypeReg}
	return Member{header: header, content: content}
}

// FileMember is a file with what the file at path holds when it is sent.
func FileMember(name, path string) (Member, error) {
	status, err := os.Stat(path)
	if err != nil {
		return Member{}, err
	}
	if !status.Mode().IsRegular() {
		return Member{}, argumentError("%s is not a regular file", path)
	}
	return diskMember(name, path, status), nil
}

func diskMember(name, path string, status fs.FileInfo) Member {
	header := tar.Header{Name: name, Mode: 0o644, Size: status.Size(), Typeflag: tar.TypeReg}
	header.ModTime = time.Unix(status.ModTime().Unix(), 0)
	if status.Mode()&0o100 != 0 {
		header.Mode = 0o755
	}
	return Member{header: header, path: path}
}

// writeTar writes the archive of these members, in constant memory.
func writeTar(to io.Writer, members each) error {
	archive := tar.NewWriter(to)
	buffer := make([]byte, pieceBytes)
	err := members(func(member Member) error {
		if err := archive.WriteHeader(&member.header); err != nil {
			return fmt.Errorf("%s: %w", member.header.Name, err)
		}
		return member.copyTo(archive, buffer)
	})
	if err != nil {
		return err
	}
	return archive.Close()
}

// copyTo writes as many bytes as the header promised: a file that grows meanwhile must not break the archive.
func (m Member) copyTo(archive io.Writer, buffer []byte) error {
	content := m.content
	if m.path != "" {
		file, err := os.Open(m.path)
		if err != nil {
			return err
		}
		defer file.Close()
		content = file
	}
	if content == nil {
		return nil
	}
	// The wrapper hides methods that would make io.CopyBuffer take other ways than our buffer.
	count, err := io.CopyBuffer(archive, struct{ io.Reader }{io.NewSectionReader(content, 0, m.header.Size)}, buffer)
	if err == nil && count < m.header.Size {
		err = fmt.Errorf("%s became shorter while it was being sent", m.header.Name)
	}
	return err
}

// sizeOf is how long the archive of these members will be: headers are written, contents are only counted.
func sizeOf(members each) (int64, error) {
	var size lengths
	err := members(func(member Member) error {
		// An archive of its own for each: one that is owed contents takes no other header.
		size.bytes += (member.header.Size + 511) / 512 * 512
		return tar.NewWriter(&size).WriteHeader(&member.header)
	})
	return size.bytes + endBytes, err
}

type lengths struct{ bytes int64 }

func (l *lengths) Write(piece []byte) (int, error) {
	l.bytes += int64(len(piece))
	return len(piece), nil
}
