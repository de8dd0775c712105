package main

import (
	"errors"
	"io"
	"os"

	pyexec "github.com/python-executor/golang-client"
)

const (
	spillBytes = 500 * 1000 * 1000
	chunkBytes = 1 << 20
	blockBytes = 512 // the block size of tar
)

var (
	errEmpty = errors.New("the stream is empty")
	errTar   = errors.New("the stream is a tar archive")
)

// readWhole reads a stream to its end: a tar header needs the size before the contents. It keeps large contents
// on disk. It fails with errEmpty or errTar.
func readWhole(stream io.Reader) (pyexec.Source, error) {
	var memory chunks
	var disk *os.File
	var size int64
	for {
		chunk := make([]byte, chunkBytes)
		count, err := io.ReadFull(stream, chunk)
		if size == 0 && isTar(chunk[:count]) {
			return pyexec.Source{}, errTar
		}
		size += int64(count)
		if disk == nil && size > spillBytes {
			var spillErr error
			if disk, spillErr = memory.spill(); spillErr != nil {
				return pyexec.Source{}, spillErr
			}
			memory = nil
		}
		if disk == nil {
			memory = append(memory, chunk[:count])
		} else if _, err := disk.Write(chunk[:count]); err != nil {
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
	return pyexec.Members(pyexec.ReaderMember("main.py", memory, size)), nil
}

// isTar reports whether a file with these first bytes is a tar archive.
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

// chunks are the contents that were read so far. All chunks except the last have the same length.
type chunks [][]byte

// spill writes the chunks to an unnamed temporary file, which disappears when this process ends.
func (c chunks) spill() (*os.File, error) {
	file, err := os.CreateTemp("", "python-executor-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, err
	}
	for _, chunk := range c {
		if _, err := file.Write(chunk); err != nil {
			return nil, err
		}
	}
	return file, nil
}

// ReadAt implements io.ReaderAt.
func (c chunks) ReadAt(buffer []byte, offset int64) (int, error) {
	count := 0
	for count < len(buffer) {
		index, within := int(offset/chunkBytes), int(offset%chunkBytes)
		if index >= len(c) || within >= len(c[index]) {
			return count, io.EOF
		}
		copied := copy(buffer[count:], c[index][within:])
		count += copied
		offset += int64(copied)
	}
	return count, nil
}
