package pyexec

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// An archive ends with two empty blocks.
const endBytes = 1024

// fixedTime is the modification time of members that are not files on disk. It is fixed, so that equal sources give
// equal archives: an idempotency key needs that. Zero means that no time is known; the server then sets the present.
var fixedTime = time.Unix(0, 0)

// Member is one entry of an archive. Create one with [TextMember], [FileMember] or [ReaderMember].
type Member struct {
	header  tar.Header
	content io.ReaderAt // nil if the entry has no content
	path    string      // the file to read, instead of content
}

var (
	// declaredEncoding matches the declaration of an encoding in one of the first two lines of a script.
	declaredEncoding = regexp.MustCompile(`^\x{feff}?(?:[ \t\f]*(?:#[^\r\n]*)?(?:\r\n?|\n))??` +
		`[ \t\f]*#[^\r\n]*?coding[:=][ \t]*([-\w.]+)`)
	utf8Name = regexp.MustCompile(`^(?i)utf[-_]?8\b`)
)

// TextMember creates a file entry from text. If it is a script in UTF-8 that declares another encoding (PEP 263), the
// declaration becomes UTF-8: Python would decode the file with it, and run another text.
func TextMember(name, content string) Member {
	if strings.HasSuffix(name, ".py") && utf8.ValidString(content) {
		at := declaredEncoding.FindStringSubmatchIndex(content)
		if at != nil && !utf8Name.MatchString(content[at[2]:at[3]]) {
			content = content[:at[2]] + "utf-8" + content[at[3]:]
		}
	}
	return ReaderMember(name, strings.NewReader(content), int64(len(content)))
}

// ReaderMember creates a file entry from the first size bytes of content.
func ReaderMember(name string, content io.ReaderAt, size int64) Member {
	header := tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: fixedTime, Typeflag: tar.TypeReg}
	return Member{header: header, content: content}
}

// FileMember creates a file entry from a file on disk. The file is read when it is sent.
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

// writeTar writes the archive in constant memory.
func writeTar(to io.Writer, walk memberWalk) error {
	archive := tar.NewWriter(to)
	buffer := make([]byte, chunkBytes)
	err := walk(func(member Member) error {
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

// copyTo writes exactly as many bytes as the header says, so that a file that grows does not corrupt the archive.
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
	// Hide WriteTo, because io.CopyBuffer would use it instead of the buffer.
	count, err := io.CopyBuffer(archive, struct{ io.Reader }{io.NewSectionReader(content, 0, m.header.Size)}, buffer)
	if err == nil && count < m.header.Size {
		err = fmt.Errorf("%s became shorter while it was being sent", m.header.Name)
	}
	return err
}

// tarSize returns the size of the archive in bytes, without reading the contents of the files.
func tarSize(walk memberWalk) (int64, error) {
	var size byteCounter
	err := walk(func(member Member) error {
		// Use a new writer for each member, because a writer rejects a header until the previous content is
		// written.
		size.bytes += (member.header.Size + 511) / 512 * 512
		return tar.NewWriter(&size).WriteHeader(&member.header)
	})
	return size.bytes + endBytes, err
}

type byteCounter struct{ bytes int64 }

func (c *byteCounter) Write(chunk []byte) (int, error) {
	c.bytes += int64(len(chunk))
	return len(chunk), nil
}
