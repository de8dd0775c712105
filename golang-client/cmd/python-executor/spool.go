package main

import (
	"errors"
	"io"
	"os"

	pyexec "github.com/python-executor/golang-client"
)

const (
	spillBytes = 500 * 1000 * 1000
	pieceBytes = 1 << 20
	blockBytes = 512 // of a tar
)

var (
	errEmpty = errors.New("it is empty")
	errTar   = errors.New("it is a tar")
)

// readWhole reads a script to its end: a tar needs the size before the contents. What is large is kept on disk.
func readWhole(stream io.Reader) (pyexec.Source, error) {
	var kept pieces
	var disk *os.File
	var size int64
	for {
		piece := make([]byte, pieceBytes)
		count, err := io.ReadFull(stream, piece)
		if size == 0 && isTar(piece[:count]) {
			return pyexec.Source{}, errTar
		}
		size += int64(count)
		if disk == nil && size > spillBytes {
			var spilled error
			if disk, spilled = kept.spill(); spilled != nil {
				return pyexec.Source{}, spilled
			}
			kept = nil
		}
		if disk == nil {
			kept = append(kept, piece[:count])
		} else if _, err := disk.Write(piece[:count]); err != nil {
			return pyexec.Source{}, err
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return pyexec.Source{}, err
		}
	}
	if size == 0 {
		return pyexec.Source{}, errEmpty
	}
	if disk != nil {
		return pyexec.Members(pyexec.ReaderMember("main.py", disk, size)), nil
	}
	return pyexec.Members(pyexec.ReaderMember("main.py", kept, size)), nil
}

// isTar says whether a file that starts so is a tar, whatever its name.
func isTar(start []byte) bool {
	const magic, at = "ustar", 257
	return len(start) >= at+len(magic) && string(start[at:at+len(magic)]) == magic
}

func isTarFile(name string) (bool, error) {
	file, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer file.Close()
	start := make([]byte, blockBytes)
	count, err := io.ReadFull(file, start)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return isTar(start[:count]), err
}

// pieces is what was read so far; each but the last has the same length.
type pieces [][]byte

// spill writes them to a file that is gone with this process.
func (p pieces) spill() (*os.File, error) {
	file, err := os.CreateTemp("", "python-executor-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, err
	}
	for _, piece := range p {
		if _, err := file.Write(piece); err != nil {
			return nil, err
		}
	}
	return file, nil
}

// ReadAt reads what lies at this offset.
func (p pieces) ReadAt(buffer []byte, offset int64) (int, error) {
	count := 0
	for count < len(buffer) {
		index, within := int(offset/pieceBytes), int(offset%pieceBytes)
		if index >= len(p) || within >= len(p[index]) {
			return count, io.EOF
		}
		copied := copy(buffer[count:], p[index][within:])
		count += copied
		offset += int64(copied)
	}
	return count, nil
}
