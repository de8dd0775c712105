package main

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	pyexec "github.com/python-executor/golang-client"
)

// downloadOutputFiles writes the output files to a directory. Existing files are replaced.
func downloadOutputFiles(
	ctx context.Context, client *pyexec.Client, result *pyexec.Result, directory string, console *console,
) error {
	printSkippedFiles(result, console)
	if len(result.Files) == 0 {
		return nil
	}
	content, err := client.Files(ctx, result.ExecutionID)
	if err != nil {
		return err
	}
	defer content.Close()
	archive := tar.NewReader(content)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the output files: %w", err)
		}
		if header.Typeflag != tar.TypeReg {
			continue // the server sends no links; directories are created when needed
		}
		if !filepath.IsLocal(header.Name) {
			return fmt.Errorf("unsafe path in the output files: %s", header.Name)
		}
		target := filepath.Join(directory, header.Name)
		if err := writeFile(target, header, archive); err != nil {
			return err
		}
		console.debug("wrote %s", target)
	}
}

func writeFile(target string, header *tar.Header, content io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
		return err
	}
	mode := os.FileMode(0o666 | header.Mode&0o111)
	file, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}
